"""Memcached 1.6 or newer, by its meta protocol."""
