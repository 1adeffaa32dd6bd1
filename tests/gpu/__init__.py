"""Tests that need a CUDA device, real or virtual."""
