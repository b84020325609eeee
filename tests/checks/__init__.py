"""Checks of the supply chain, for `make check`."""
