"""The mathematics: each function readable in NumPy, with its formula, where it holds and its source."""
