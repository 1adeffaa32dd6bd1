"""The tests of gpuprop; pytest collects them from the root of the repository."""
