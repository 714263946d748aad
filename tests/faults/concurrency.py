"""Rows C: many at once, in every order."""
