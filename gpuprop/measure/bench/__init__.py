"""Measuring, for ``gpuprop bench`` and the scripts in ``benchmarks/``."""
