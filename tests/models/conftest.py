"""A bench for the tests of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_worker import (
    FakeWorkers,
)
from tests.support.model_bench import ARN, Bench
from tests.support.packages import make_package


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages `1`, `2`, `3` (segmentation), `classifier`, `any-size` and `bad`; an ARN tells 1, 2, 3 apart."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("1", "2", "3"):
        make_package(folder / name, version=f"{name}.0.0", arn=ARN.format(name))
    make_package(folder / "classifier", task="classification")
    make_package(folder / "any-size", any_size=True)
    make_package(folder / "bad")
    (folder / "bad" / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def workers() -> Iterator[FakeWorkers]:
    workers = FakeWorkers()
    yield workers
    assert workers.faults == []


@pytest.fixture
def bench(workers: FakeWorkers, packages: Path) -> Iterator[Bench]:
    bench = Bench(workers, packages)
    yield bench
    bench.close()
