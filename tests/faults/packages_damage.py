"""Row E4: ONNX models that are damaged at random."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from tests.faults.packages_graphs import mutant, write_model
from tests.faults.packages_support import Suspect, check_sentence, put, suspect
from tests.faults.row import Run, row
from tests.support.agent_process import PATIENCE
from tests.support.checkout import ROOT
from tests.support.packages import make_package

CHUNK = 20
"""Models between two looks at the clock."""
FOR_THE_AGENT = 1000
"""One of so many goes through the agent, besides those that end a process."""
OUT_OF_TIME = "SIGXCPU"


@row(
    "E4",
    "ONNX models damaged at random: served or FAILED; what ends a worker ends nothing else",
    unit="models",
    full=1_000_000,
    short=100,
)
def damaged_models(run: Run) -> None:
    """Most are opened one after another by a process that does as a worker does; what ends it, the agent tries too."""
    package = make_package(run.folder / "opened", task="classification")
    with suspect(run) as model, contextlib.closing(_outcomes(package, run.seed)) as outcomes:
        for first in run.steps(each=CHUNK):
            for number in range(first, first + CHUNK):
                outcome = next(outcomes)
                run.saw(outcome)
                # What takes all time there is would take the agent's limit, too: row E5 has such models.
                if outcome != OUT_OF_TIME and (outcome.startswith("SIG") or number % FOR_THE_AGENT == 0):
                    _try_in_agent(model, run.folder / "good", mutant(run.seed, number))


def _outcomes(package: Path, seed: int) -> Generator[str, None, None]:
    """What came of each model: `serves`, the name of a refusal, or of the signal that ended who opened it."""
    number = 0
    while True:
        with _opener(package, seed, number) as opener:
            assert opener.stdout is not None
            for line in opener.stdout:
                told, _, outcome = line.rstrip("\n").partition(" ")
                assert int(told) == number, line
                kind, _, sentence = outcome.partition(": ")
                if sentence:
                    check_sentence(sentence, package)
                number += 1
                yield kind
            ended_with = opener.wait(PATIENCE)
        assert ended_with < 0, f"model {number} of seed {seed} ended its process with exit code {ended_with}"
        number += 1
        yield signal.Signals(-ended_with).name


@contextlib.contextmanager
def _opener(package: Path, seed: int, first: int) -> Generator[subprocess.Popen[str], None, None]:
    command = [sys.executable, "-m", "tests.faults.packages_opener", str(package), str(seed), str(first)]
    # Runtimes are told to log errors; who wants to see them runs the command.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _try_in_agent(model: Suspect, good: Path, content: bytes) -> None:
    put(good, model.folder)
    write_model(model.folder, content)
    model.start()
