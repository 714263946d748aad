"""What Prometheus reads, from figures made up here."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from agent.backends.base import STAGES, RunsOn
from agent.images.detection import Detection
from agent.metrics.catalogue import AGENT_METRICS, METRICS, MODEL_METRICS, AgentFigures
from agent.metrics.collector import registry_of
from agent.models.figures import ModelFigures, WorkerFigures
from agent.models.lifecycle import ModelStatus
from agent.models.tally import Tally
from agent.models.worker_post import ServedBy
from tests.support.scraping import Scrape

FALLBACK = RunsOn("ONNX Runtime 1.31.1", "CPU", "cuda", "CUDA ...", wanted="auto", refused_as="DeviceNotUsable")


def model(component: str = "bolt", runs_on: RunsOn | None = FALLBACK, version: str = "1.0.0") -> ModelFigures:
    tally = Tally()
    for score in (0.1, 0.2, 0.5, 0.97):
        tally.answered(Detection(score >= 0.5, 0.5, score, 0.5), waited=0.0, took=score)
    tally.refused("INVALID_ARGUMENT", "WrongImageSize")
    worker = None if runs_on is None else WorkerFigures(ServedBy(version, runs_on), 1.5, 4096)
    return ModelFigures(component, ModelStatus.RUNNING, "building", worker, 2, 3, 1, 0.5, tally.counted())


def text(*models: ModelFigures) -> str:
    figures = AgentFigures("1.3.0", {("DetectAnomalies", "OK"): 4}, 5, 12288, models)
    return generate_latest(registry_of(lambda: figures)).decode()


def shown(*models: ModelFigures) -> Scrape:
    return Scrape(text(*models))


def test_what_the_models_know_is_shown_by_model() -> None:
    told = shown(model("bolt"), model("nut"))
    for component in ("bolt", "nut"):
        assert told.value("edge_agent_model_state", model=component, state="RUNNING") == 1
        assert told.value("edge_agent_model_state", model=component, state="FAILED") == 0
        assert told.value("edge_agent_model_ready", model=component) == 1
        assert told.value("edge_agent_model_load_seconds", model=component) == 1.5
        assert told.value("edge_agent_model_threshold", model=component) == 0.5
        assert told.value("edge_agent_worker_memory_bytes", model=component) == 4096
        assert told.value("edge_agent_worker_restarts_total", model=component) == 1
        assert told.value("edge_agent_model_calls_in_hand", model=component) == 2
        assert told.value("edge_agent_model_calls_waiting", model=component) == 3
        assert told.value("edge_agent_images_total", model=component, verdict="normal") == 2
        assert told.value("edge_agent_images_total", model=component, verdict="anomalous") == 2
        labels = {"code": "INVALID_ARGUMENT", "reason": "WrongImageSize"}
        assert told.value("edge_agent_refused_images_total", model=component, **labels) == 1
    assert told.models() == {"bolt", "nut"}


def test_what_the_agent_knows_is_shown_once() -> None:
    told = shown()
    assert told.value("edge_agent_info", version="1.3.0") == 1
    assert told.value("edge_agent_calls_total", method="DetectAnomalies", code="OK") == 4
    assert told.value("edge_agent_images_in_hand") == 5
    assert told.value("edge_agent_message_memory_bytes") == 12288
    assert (told.value("process_resident_memory_bytes") or 0) > 1 << 20
    assert told.models() == set()


def test_a_histograms_buckets_hold_all_that_is_smaller() -> None:
    told = shown(model())

    def bucket(bound: str) -> float | None:
        return told.value("edge_agent_anomaly_score_bucket", model="bolt", le=bound)

    bounds = ("0.05", "0.1", "0.2", "0.45", "0.5", "0.95", "1.0", "+Inf")
    assert [bucket(bound) for bound in bounds] == [0, 1, 2, 2, 3, 3, 4, 4]
    assert told.value("edge_agent_anomaly_score_count", model="bolt") == 4
    assert told.value("edge_agent_anomaly_score_sum", model="bolt") == pytest.approx(1.77)
    assert told.value("edge_agent_step_seconds_count", model="bolt", step="waiting") == 4


def test_a_fallback_says_from_what_and_why_in_labels_with_few_values() -> None:
    told = shown(model("bolt"), model("nut", RunsOn("TensorRT 10.3.0", "Orin", wanted="tensorrt")))
    assert told.value("edge_agent_model_fallback", model="bolt") == 1
    assert told.value("edge_agent_model_fallback", model="nut") == 0
    assert told.series("edge_agent_model_info") == [
        {
            "model": "bolt",
            "version": "1.0.0",
            "runtime": "ONNX Runtime 1.31.1",
            "device": "CPU",
            "wanted_device": "auto",
            "instead_of": "cuda",
            "reason": "DeviceNotUsable",
        },
        {
            "model": "nut",
            "version": "1.0.0",
            "runtime": "TensorRT 10.3.0",
            "device": "Orin",
            "wanted_device": "tensorrt",
            "instead_of": "",
            "reason": "",
        },
    ]


def test_what_loading_is_at_is_shown_among_all_that_it_may_be() -> None:
    told = shown(model())
    stages = {stage: told.value("edge_agent_model_stage", model="bolt", stage=stage) for stage in STAGES}
    assert stages == {"loading": 0, "waiting": 0, "building": 1}


def test_a_model_without_a_worker_says_nothing_of_one() -> None:
    told = shown(model(runs_on=None))
    of_workers = {"edge_agent_model_info", "edge_agent_model_fallback", "edge_agent_model_load_seconds"}
    for name in (*of_workers, "edge_agent_worker_memory_bytes"):
        assert told.series(name) == []
    assert told.value("edge_agent_model_ready", model="bolt") == 0


def test_whatever_a_version_holds_stays_within_its_label() -> None:
    version = 'a"}\n# \\ größe 1'
    (labels,) = shown(model(version=version)).series("edge_agent_model_info")
    assert labels["version"] == version


def test_all_of_the_catalogue_is_shown_and_nothing_else() -> None:
    told = shown(model())
    ours = {name for name in told.families if name.startswith("edge_agent_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = told.families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.says)
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert labels == {frozenset(metric.labels)}


def test_names_and_labels_are_as_prometheus_wants_them() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"edge_agent_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") is (metric.kind == "counter")
        assert metric.says.endswith((".", "FAILED, STOPPING."))
    assert all(metric.labels[0] == "model" for metric in MODEL_METRICS)
    assert all("model" not in metric.labels for metric in AGENT_METRICS)


def test_the_linter_of_prometheus_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    linted = subprocess.run([promtool, "check", "metrics"], input=text(model()), capture_output=True, text=True)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
