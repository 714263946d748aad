"""`import tensorrt`, where this folder is on the path."""

import os
import sys
from pathlib import Path

from tests.support.fake_cuda import FakeCuda
from tests.support.fake_tensorrt import FakeTensorRt

fake = FakeTensorRt(FakeCuda(Path(os.environ["PRETENDED_CUDA"])), os.environ.get("PRETENDED_TENSORRT", "10.3.0"))
fake.gate = os.environ.get("PRETENDED_BUILD_GATE", "")
fake.fp16_error = float(os.environ.get("PRETENDED_FP16_ERROR", "0"))
sys.modules[__name__] = fake
