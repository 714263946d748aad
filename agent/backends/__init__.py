"""Tensors to tensors: one file per runtime, each one class that knows nothing of images."""
