"""Pixels in, pixels out: bitmaps, shared memory, preprocessing, postprocessing, detections."""
