"""Watching a bidder: its telemetry for Prometheus, its calibration as clicks come in, tests that may be read any time.

The collector is `bidml.monitor.prometheus` (extra `monitor`); the rest needs NumPy and SciPy. Nothing here is imported
by the runtime.
"""
