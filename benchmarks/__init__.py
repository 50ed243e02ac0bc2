"""Benchmarks that report ratios within one run, which depend little on how fast or busy the machine is."""
