"""Measurements: benchmarks, the equivalence of backends, and the machine that they ran on."""
