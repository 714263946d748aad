"""Rows H: what only shows after a long time."""
