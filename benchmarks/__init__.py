"""Benchmarks: ratios within one run, medians of warm rounds, peers installed and run for real."""
