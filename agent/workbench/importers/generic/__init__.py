"""Any ONNX classifier, segmentation net or anomaly map."""
