"""The CUDA backend: the kernels of `gpuprop_kernels` on CuPy's arrays, or in Numba's simulator."""
