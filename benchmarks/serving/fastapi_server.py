"""The peer that is nearest: FastAPI and ONNX Runtime, the floor's arithmetic, raw body, one near-default instance.

python -m benchmarks.serving.fastapi_server SOCKET MODEL
"""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from benchmarks.serving.floor import inspect, open_session


def make_app(model: str) -> FastAPI:
    session = open_session(model)
    app = FastAPI()

    @app.post("/detect")
    async def detect(request: Request, width: int, height: int) -> dict[str, float]:
        pixels = np.frombuffer(await request.body(), np.uint8).reshape(height, width, 3)
        verdict = await run_in_threadpool(inspect, session, pixels)
        return {"score": verdict.score}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), uds=sys.argv[1], log_level="warning")
