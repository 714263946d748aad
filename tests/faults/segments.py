"""Rows B: what a client may do with shared memory."""
