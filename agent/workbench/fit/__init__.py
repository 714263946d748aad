"""Fit: a model package from a few dozen good images, on a CPU, in seconds.

`method` makes the model of the good images, `draft` what a package says of it. The method is split as its arithmetic
is: `augment`, `filter_bank`, `coreset`, `patch_distance`, `calibrate`; `graph_builder` is the
hand that writes ONNX nodes.
"""
