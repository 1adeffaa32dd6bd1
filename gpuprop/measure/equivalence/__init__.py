"""What every backend is measured against: a float64 oracle and one table of tolerances.

``oracle`` shares no code with the rest of gpuprop, so that agreeing with it means something; ``tolerances`` says
how far float32 and float64 results may lie from it, and why. Both the tests and ``gpuprop selfcheck`` use them.
"""
