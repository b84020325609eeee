"""Measurements, printed and never asserted: `make bench` runs them, the suite does not."""
