"""Packages of Lookout for Vision and of the Defect Detection Application."""
