"""The demo, on a few photographs of the user's and on drawn parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from agent.workbench.demo.pictures import truth_of
from agent.workbench.demo.report import read_answers, summary
from agent.workbench.part_pictures import Defect, draw_part


def run_demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "test").mkdir()
    for seed in range(8):
        Image.fromarray(draw_part(seed, width=320, height=240).pixels).save(folder / f"{seed}.png")
    Image.fromarray(draw_part(100, width=320, height=240).pixels).save(folder / "test/good-1.png")
    Image.fromarray(draw_part(101, Defect.CHIP, width=320, height=240).pixels).save(folder / "test/chip-1.png")
    return folder


def test_ones_own_photographs_go_the_whole_way(photographs: Path, tmp_path: Path) -> None:
    ended = run_demo("--images", str(photographs), "--output", "out", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with Image.open(tmp_path / "out/contact-sheet.png") as sheet:
        assert sheet.width > 600
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [Path(answer["image"]).name for answer in answers] == ["chip-1.png", "good-1.png"]
    assert "$ edge-agent fit" in ended.stdout and "verdicts are right" in ended.stdout
    assert "asked to stop" in (tmp_path / "out/agent.log").read_text()
    assert {path.name for path in photographs.iterdir()} == {"test", *(f"{seed}.png" for seed in range(8))}
    # Once more over its own output, but never over anybody else's.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious.txt").touch()
    refused = run_demo("--images", str(photographs), "--output", "mine", folder=tmp_path)
    assert refused.returncode == 1
    assert "not cleared" in refused.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]
    # Nor over the photographs themselves, if they were put into an earlier demo's folder.
    shutil.copytree(photographs, tmp_path / "out/mine")
    refused = run_demo("--images", "out/mine", "--output", "out", folder=tmp_path)
    assert refused.returncode == 1 and "out/mine lies in out" in refused.stderr
    assert len(list((tmp_path / "out/mine").iterdir())) == 9


def test_a_step_that_fails_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run_demo("--images", "empty", folder=tmp_path)
    assert ended.returncode == 1
    assert "No images found in empty" in ended.stderr
    assert "edge-agent fit" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("picture", "truth"),
    [
        ("7.png", "good"),
        ("normal/7.png", "good"),
        ("test/good-3.png", "good"),
        ("test/scratch-3.png", "scratch"),
        ("test/test-scratch-3.png", "scratch"),
        ("test/0815.png", None),
        ("test/img-3.png", None),
        ("test/normal/7.png", "good"),
        ("test/bent/7.png", "bent"),
    ],
)
def test_folders_and_names_tell_the_truth(picture: str, truth: str | None) -> None:
    assert truth_of(Path("images", picture), Path("images")) == truth


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("images/test/good-3.png", "1 of 1 verdicts are right"),
        (
            "images/7.png",
            "1 of 1 verdicts are right, but of pictures that the model was made of: put others into test/",
        ),
    ],
)
def test_verdicts_on_what_the_model_was_made_of_are_no_praise(picture: str, told: str, tmp_path: Path) -> None:
    answer = {"image": str(tmp_path / picture), "is_anomalous": False, "anomaly_score": 0.1, "anomaly_threshold": 0.5}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer | {"anomalies": [], "overlay": "overlay.png"}))
    assert summary(read_answers(tmp_path / "answers.jsonl", tmp_path / "images")) == told
