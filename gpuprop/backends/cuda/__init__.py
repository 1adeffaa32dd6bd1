"""The kernels of `gpuprop_kernels` under CuPy's arrays, or in Numba's simulator."""
