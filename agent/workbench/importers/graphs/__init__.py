"""ONNX graphs at the bench: read, looked at, walked and changed."""
