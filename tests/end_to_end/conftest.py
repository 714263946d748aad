"""An agent with one segmentation model of any size and one classification model, shared by the tests of a file; and a
line by deployment alone."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.greengrass_line import Line, build_models, build_without_install_steps, provide_environments
from tests.support.packages import make_package


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("packages")
    with AgentProcess() as running:
        running.run_model("any-size", make_package(folder / "any-size", any_size=True))
        running.run_model("classifier", make_package(folder / "classifier", task="classification"))
        yield running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Components for a line, ready to be deployed."""
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")
    site: Path = tmp_path_factory.mktemp("site")
    build_models(site, tmp_path_factory.mktemp("site-packages"))
    build_without_install_steps(site)
    return site


@pytest.fixture
def line(site: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    """A device with nothing deployed; parametrised with java or lite."""
    folder = Path(tempfile.mkdtemp(prefix="gg-"))
    provide_environments(folder / "greengrass/work")
    with Line(site, folder, lite=request.param == "lite") as line:
        yield line
    shutil.rmtree(folder)
