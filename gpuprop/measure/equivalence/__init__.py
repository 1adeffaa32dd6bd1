"""Every backend is compared with a float64 oracle, within one table of tolerances.

``oracle`` shares no code with the rest of gpuprop, so that agreement with it is evidence; ``tolerances`` says how much
float32 and float64 results may differ from it, and why. Both the tests and ``gpuprop selfcheck`` use them.
"""
