"""Row C11: new versions of models that are being called."""

from __future__ import annotations

import shutil
import threading
import time

from agent.packages.manifest import Decision
from tests.faults.clients import PATIENCE, in_threads, milliseconds, percentile, running
from tests.faults.row import Run, row
from tests.support.agent_process import describe, detect, inline_request, wait_for
from tests.support.packages import changed, grey, make_package

THRESHOLDS = (0.5, 0.25, 0.75)
"""Of the versions, in turn: an answer tells which one gave it."""
BAD = 3
"""Every so many versions, one is bad."""


@row(
    "C11",
    "new versions of models under load, bad ones in between: no call fails, a bad one leaves the old one serving",
    unit="versions",
    full=1000,
    short=3,
)
def updates(run: Run) -> None:
    for threshold in THRESHOLDS:
        decision = Decision(threshold=threshold)
        make_package(run.folder / str(threshold), change=lambda manifest, it=decision: changed(manifest, decision=it))
    shutil.copytree(run.folder / str(THRESHOLDS[0]), run.folder / "bad")
    (run.folder / "bad" / "model.onnx").write_bytes(b"no model")
    # Two: while the agent has yet to look for the next version of one, it loads the other's.
    models = [_UpdatedModel(run, component) for component in ("updated-1", "updated-2")]
    with running(run.agent, {model.component: run.folder / str(THRESHOLDS[0]) for model in models}):
        in_threads([work for model in models for work in (model.be_called, model.be_updated)])
    latencies = [seconds for model in models for seconds in model.latencies]
    run.figures["calls meanwhile"] = f"{len(latencies)}, none failed"
    run.figures["p99"] = milliseconds(percentile(latencies, 0.99))
    run.figures["slowest"] = milliseconds(max(latencies))


class _UpdatedModel:
    """A model with a client that calls all the time, while its versions change."""

    def __init__(self, run: Run, component: str) -> None:
        self.component = component
        self.latencies = list[float]()
        """Seconds of each call."""
        self._run, self._image = run, inline_request(component, grey(0))
        self._over = threading.Event()

    def be_called(self) -> None:
        stub = self._run.agent.stub()
        while not self._over.is_set():
            begin = time.monotonic()
            result = stub.DetectAnomalies(self._image, timeout=PATIENCE).detect_anomaly_result
            self.latencies.append(time.monotonic() - begin)
            assert result.is_anomalous and result.anomaly_threshold in THRESHOLDS, result

    def be_updated(self) -> None:
        try:
            self._change_versions()
        finally:
            self._over.set()

    def _change_versions(self) -> None:
        run, stub, serving, replaced = self._run, self._run.agent.stub(), THRESHOLDS[0], []
        for number in run.steps():
            version, is_bad = f"{number + 2}.0.0", number % BAD == BAD - 1
            threshold = THRESHOLDS[number % len(THRESHOLDS)]
            content = run.folder / ("bad" if is_bad else str(threshold))
            folder = shutil.copytree(content, run.folder / f"{self.component}-{version}")
            run.agent.register(self.component, folder, version)
            told = f"version {version} does not take over" if is_bad else f"version {version},"
            wait_for(told, lambda told=told: told in describe(stub, self.component).status_message, PATIENCE)
            if not is_bad:
                serving = threshold
                for old in replaced:
                    shutil.rmtree(old)
                replaced.clear()
            # Not before the next one serves: a model whose package has gone leaves.
            replaced.append(folder)
            assert detect(stub, self._image).anomaly_threshold == serving
            run.saw("bad, the old one serves" if is_bad else "took over")
