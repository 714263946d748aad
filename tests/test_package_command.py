"""`edge-agent package`: what is common to all kinds of sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import cli
from agent.commands.package import KINDS
from tests.support.packages import make_package


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    source = make_package(tmp_path / "source")
    return ["package", "fitted", str(source), "--component", "plate", "--output", str(tmp_path / "out")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_explains_itself(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["package", kind, "--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert "SOURCE" in help_text and "--component NAME" in help_text


def test_a_dry_run_prints_the_manifest_and_writes_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--dry-run", "--version", "3.2.1"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["version"] == "3.2.1"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_warns_as_the_real_one_does(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--dry-run", "--image-size", "128x96"]) == 0
    assert "Warning: the source's own images are of another size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--version", "1.0"],
        ["--version", "01.0.0"],
        ["--description", "two\nlines"],
        ["--tag", "no value"],
        ["--tag", "line=1", "--tag", "line=2"],
        ["--target-device", "abacus"],
        ["--image-size", "small"],
        ["--root", "photos"],
    ],
)
def test_a_dry_run_refuses_what_the_real_one_does_and_exits_2(
    command: list[str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--dry-run", *options]) == 2
    assert f"edge-agent package: {options[0]}" in capsys.readouterr().err


def test_a_package_of_a_part_can_be_packaged_again(command: list[str], tmp_path: Path) -> None:
    assert cli.main([*command, "--region", "10,10,60,40", "--ignore", "20,20,5,5"]) == 0
    made = tmp_path / "out" / "packages" / "plate-1.0.0"
    again = ["package", "fitted", str(made), "--component", "again", "--output", str(tmp_path / "out")]
    assert cli.main(again) == 0
    manifest = json.loads((tmp_path / "out" / "packages" / "again-1.0.0" / "manifest.json").read_text())
    assert manifest["preprocessing"]["region_of_interest"] == {"x": 10, "y": 10, "width": 60, "height": 40}
    assert manifest["preprocessing"]["ignore_mask"]


@pytest.mark.parametrize("option", ["--threshold", "--pixel-threshold", "--range"])
def test_what_is_no_number_is_said_in_a_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["package", "anomalib", "model.onnx", "--component", "plate", option, "high"])
    assert ended.value.code == 2
    assert f"argument {option}: 'high' is no number" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["onnx", "ultralytics"])
def test_a_threshold_outside_0_to_1_is_no_score(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["package", kind, "model.onnx", "--component", "plate", "--threshold", "25"])
    assert ended.value.code == 2
    assert "argument --threshold: '25' is no score, 0 to 1" in capsys.readouterr().err
