"""Listeners: metrics, statistics and logging. The core only emits events."""
