"""The vision edge agent: visual inspection at the edge, over gRPC on a unix socket."""

import os

# Nothing on this device tells anybody anything: ONNX Runtime's telemetry is off before anybody imports it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "1.3.0"
