"""NumPy's BLAS, or register tiles, for the multiplications, and compiled loops for all between them."""
