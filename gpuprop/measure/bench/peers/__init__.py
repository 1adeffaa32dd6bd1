"""gpuprop on the CPU beside NumPy, scikit-learn, PyTorch and JAX: ``gpuprop bench peers``.

`configs` says what is trained, `contenders` and `libraries` who trains it, `worker` is the process of one contender,
`comparison` lets them take turns, and `report` makes the tables and the picture.
"""
