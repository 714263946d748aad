"""An agent with one segmentation model of any size and one classification model, shared by the tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.packages import make_package


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("packages")
    with AgentProcess() as running:
        running.run_model("any-size", make_package(folder / "any-size", any_size=True))
        running.run_model("classifier", make_package(folder / "classifier", task="classification"))
        yield running
