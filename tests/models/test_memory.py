"""Memory: what a model will want against what there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NotEnoughMemory
from agent.free_memory import available_memory
from agent.models.keeper import ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.memory import WORKER, memory_to_load, needed_memory
from agent.models.registry import Record
from agent.models.served_model import ServedModel
from agent.packages.package import read_package
from tests.support.fake_worker import PATIENCE, FakeWorkers
from tests.support.packages import make_package


def test_a_model_wants_a_worker_and_its_weights_twice_and_no_self_test_images(tmp_path: Path) -> None:
    manifest = read_package(make_package(tmp_path / "p")).manifest
    (model,) = (file for file in manifest.files if file.runtime)
    assert needed_memory(manifest) == WORKER + 2 * model.size


def test_loading_leaves_some_of_it_to_those_that_serve() -> None:
    assert 0.8 < memory_to_load() / available_memory() < 0.95


def test_a_start_without_enough_memory_is_refused_with_figures_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    settings = ModelSettings(2, 2, PATIENCE, PATIENCE, available_memory=lambda: 50 << 20)
    workers = FakeWorkers()
    model = ServedModel(Record("m", "1.0.0", str(make_package(tmp_path / "p"))), workers, settings)
    with pytest.raises(NotEnoughMemory, match='"m" needs about 96 MiB of memory, and 50 MiB are free'):
        model.start()
    assert model.describe().status is ModelStatus.STOPPED
    assert workers.opened == []
    enough = ServedModel(
        Record("m", "1.0.0", str(tmp_path / "p")), workers, replace(settings, available_memory=lambda: 100 << 20)
    )
    enough.start()
    workers.number(0)
    enough.close()
