"""Epochs: the trainer, callbacks, and several trainings side by side."""
