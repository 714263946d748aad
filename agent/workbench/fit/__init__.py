"""Fit: a model package from a few dozen good images, on a CPU, in seconds.

`source` finds the good images, `method` makes the model of them, `package_writer` writes the package. The method is
split as its arithmetic is: `augment`, `filter_bank`, `coreset`, `patch_distance`, `calibrate`; `graph_builder` is the
hand that writes ONNX nodes.
"""
