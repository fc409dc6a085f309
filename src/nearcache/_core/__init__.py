"""Decisions without effects: no I/O, no lock, no clock of their own; time comes as an argument."""
