"""ONNX exports of Ultralytics."""
