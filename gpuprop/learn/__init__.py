"""The algorithm made visible: traces, exercises, live pages, gradient checks and plots."""
