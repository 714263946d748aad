"""Metrics for Prometheus: what there is, where it comes from, and the port at which it is read."""
