"""Inspecting images at the bench: with a package itself, or through an agent that serves it."""
