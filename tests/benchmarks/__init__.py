"""Measurements, printed: `make bench` runs them, the suite does not. Only `enumeration.py` fails, over its limits."""
