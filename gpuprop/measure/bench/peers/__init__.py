"""gpuprop on the CPU beside NumPy, scikit-learn, PyTorch and JAX: ``gpuprop bench peers``.

`configs` holds the networks and the data, `contenders` and `libraries` hold those who train them, `worker` is the
process of one contender, `comparison` lets the contenders take turns, and `tables` makes the tables and the picture.
"""
