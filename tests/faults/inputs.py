"""Rows A: what a client may send."""

from __future__ import annotations

import grpc

from tests.faults.row import ANY_SIZE, Run, row
from tests.support.agent_process import detect, inline_request, refusal
from tests.support.packages import grey


@row("A2", "bytes that are not width x height x 3: INVALID_ARGUMENT", unit="requests", full=1000, short=20)
def wrong_length(run: Run) -> None:
    stub = run.agent.stub()
    for _ in run.steps():
        request = inline_request(ANY_SIZE, grey(0))
        request.bitmap.byte_data += b"x" * run.random.choice((1, 5, len(request.bitmap.byte_data)))
        code, sentence = refusal(lambda request=request: detect(stub, request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, sentence
        run.saw(code.name)
