"""Scalar forms: each activation, loss and optimizer once, as plain Python functions of one number.

A form is built for a dtype and a set of elementary functions:

==============  ======================================================================================================
``dt``          the Numba type; ``dt(0.5)`` is a constant in it. A bare ``0.5`` would bring float64 arithmetic into a
                float32 loop, on a consumer's GPU at 1/64 of the speed.
``e``           a namespace with ``exp expm1 log sqrt tanh logistic softplus normal_distribution``, which the target
                supplies in its own best way: `gpuprop.backends.cpu.elementary` for loops on a CPU, and
                `gpuprop_kernels.activations.elementary_functions` for CUDA and for Numba's simulator
==============  ======================================================================================================

What comes out closes over these constants and functions and over nothing else, so that both ``numba.njit`` and
the CUDA target of Numba compile it, and Python runs it. This package imports neither Numba nor gpuprop. The same
formulas for whole arrays, with their sources, are in `gpuprop.maths`; independent ones, which prove both, are in
`gpuprop.measure.equivalence.oracle`.

To add a function, write its form here, its record in `gpuprop.maths`, and its line in the oracle.
"""
