"""The primitives in plain NumPy: the readable reference."""
