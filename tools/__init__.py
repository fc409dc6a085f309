"""Checks of this repository, run by `make lint` and `make release`."""
