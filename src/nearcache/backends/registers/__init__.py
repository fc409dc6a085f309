"""Leases and marks for engines that run no scripts, written once over single records that are swapped."""
