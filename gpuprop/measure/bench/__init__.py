"""Measuring: what the scripts in ``benchmarks/`` and ``gpuprop bench`` stand on."""
