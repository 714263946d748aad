"""What a client rejects, and how good that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent import cli
from agent.images.detection import Detection, Region
from agent.workbench.evaluation.client_rules import ClientRules
from tests.support.packages import grey, make_package

WHITE = "#FFFFFF"


def answer(is_anomalous: bool = True, confidence: float = 0.8, **areas: float) -> Detection:
    regions = (Region("background", 1 - sum(areas.values()), WHITE),)
    regions += tuple(Region(name, area, "#23A436") for name, area in areas.items())
    return Detection(is_anomalous, confidence, confidence, 0.5, regions=regions)


@pytest.mark.parametrize(
    ("rules", "detection", "is_rejected"),
    [
        (ClientRules(), answer(), True),
        (ClientRules(), answer(is_anomalous=False), False),
        (ClientRules(confidence=0.8), answer(), True),
        (ClientRules(confidence=0.81), answer(), False),
        (ClientRules(areas={"dent": 0.02}), answer(dent=0.03), True),
        (ClientRules(areas={"dent": 0.02}), answer(dent=0.02), False),
        (ClientRules(areas={"dent": 0.02}), answer(scratch=0.5), False),
        (ClientRules(areas={"dent": 0.02, "scratch": 0.1}), answer(dent=0.01, scratch=0.2), True),
        (ClientRules(confidence=0.9, areas={"dent": 0.02}), answer(dent=0.5), False),
        (ClientRules(areas={"dent": 0.02}), answer(is_anomalous=False, dent=0.5), False),
        (ClientRules(types=1), answer(dent=0.01), False),
        (ClientRules(types=1), answer(dent=0.01, scratch=0.01), True),
        (ClientRules(types=0), answer(dent=0.01), True),
        (ClientRules(areas={"dent": 0.5}, types=1), answer(dent=0.01, scratch=0.01), True),
    ],
)
def test_rules_are_gated_by_the_verdict_and_its_confidence(
    rules: ClientRules, detection: Detection, is_rejected: bool
) -> None:
    assert rules.reject(detection) == is_rejected


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A good image with a speck that the model calls anomalous, and a bad one with a large spot."""
    make_package(tmp_path / "package")
    for name, rows in (("normal-1", 1), ("anomaly-1", 20)):
        pixels = grey(255)
        pixels[:rows] = 0
        Image.fromarray(np.asarray(pixels)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_the_command_tells_what_a_client_would_reject(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(images / "package"), str(images), "--output", str(images / "out")]
    assert cli.main([*command, "--reject-confidence", "0.9", "--reject-area", "anomaly=0.1"]) == 0
    printed = capsys.readouterr().out
    assert "anomalous with a confidence of at least 0.9, and anomaly covering more than 10 %:" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert ["truth:", "normal", "0", "1"] in rows, "the model's verdicts"
    assert ["truth:", "normal", "1", "0"] in rows, "the client's"
    assert "precision 1.0000, recall 1.0000, F1 1.0000" in printed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--reject-confidence", "1.1"),
        ("--reject-types", "-1"),
        ("--reject-area", "anomaly"),
        ("--reject-area", "=0.1"),
        ("--reject-area", "anomaly=2"),
    ],
)
def test_rules_that_mean_nothing_are_refused(
    images: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert cli.main(["evaluate", str(images / "package"), str(images), f"{option}={value}"]) == 2
    assert f"{option} is {value}" in capsys.readouterr().err
