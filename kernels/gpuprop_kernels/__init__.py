"""The CUDA kernels of gpuprop, written in Python for Numba; `README.md` in the folder above is the index.

It imports numba, numpy and itself, never gpuprop or cupy. Read the modules in the order of the algorithm: `target`
(what a kernel may use), `shapes`, `staging` and `tile` (the multiplication they share), `forward`, `loss` and `head`,
`delta`, `gradient`, `update`; `launch` starts them.
"""
