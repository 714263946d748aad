"""Packages and models in a page that a person can read."""
