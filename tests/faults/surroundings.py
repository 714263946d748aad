"""Rows F and G: full disks, stalled logs, power cuts, and who may do what."""
