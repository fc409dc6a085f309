"""Connections, and the ways over them, for engines of any dialect."""
