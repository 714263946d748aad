"""Exports of anomalib, 0.7 to 2.7."""
