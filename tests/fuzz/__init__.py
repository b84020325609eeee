"""Malformed requests by the million, out of a seed: `make fuzz`. A short run of it is `tests/test_fuzz.py`."""
