"""The kernels in Numba's simulator or on a device, against the float64 oracle."""
