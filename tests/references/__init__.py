"""Slow, short, independent versions of what the package computes; nothing here imports the package."""
