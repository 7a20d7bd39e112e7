"""Benchmarks. Run one with `python -m benchmarks.bench_<what>`; README.md says how to read the numbers."""
