"""`edge-agent replay`, on pictures that the camera client itself has kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent import cli
from agent.images.detection import Detection, Region
from agent.packages.manifest import Decision
from agent.workbench.contact_sheet import RIGHT, WRONG
from agent.workbench.dataset.good_images import good_images
from agent.workbench.dataset.labelled_images import labelled_images
from agent.workbench.replay import sheets
from agent.workbench.replay.replay import Change, MaskChange, change_between, mask_change
from tests.support.agent_process import AgentProcess, detect, inline_request, names, wait_for
from tests.support.camera_process import CameraProcess, put_picture
from tests.support.checkout import ROOT
from tests.support.packages import HEIGHT, WIDTH, changed, grey, make_package

COOKIES = ROOT.parent / "shared" / "data" / "cookies"
SPOTTED = "5.png"
BRIGHTNESS = {"1.png": 255, "2.png": 200, "3.png": 130, "4.png": 120, SPOTTED: 0}
"""The tiny model's score is 1 - brightness / 255, so that the third has 0.4902 and the fourth 0.5294."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`parts`, with a threshold of 0.5; `strict` 2.0.0, with 0.45; and `numbers`, which paints no masks."""
    folder = tmp_path_factory.mktemp("packages")
    make_package(folder / "parts")
    stricter = Decision(threshold=0.45, pixel_threshold=0.45)
    make_package(folder / "strict", version="2.0.0", change=lambda manifest: changed(manifest, decision=stricter))
    make_package(folder / "numbers", task="classification")
    return folder


@pytest.fixture(scope="module")
def agent(packages: Path) -> Iterator[AgentProcess]:
    with AgentProcess() as process:
        process.run_model("parts", packages / "parts")
        process.register("strict", packages / "strict", "2.0.0")
        wait_for("the models to be listed", lambda: len(names(process.stub())) == 2)
        yield process


def capture(agent: AgentProcess, model: str, pictures: Path, folder: Path) -> Path:
    """What the camera client keeps of the pictures of a folder: all of them."""
    settings = {
        "model": model,
        "name": "line-1",
        "socket": f"unix://{agent.socket}",
        "source": {"address": f"folder:{pictures}"},
        "rules": {"uncertain_band": 0.05},
        "capture": {"folder": "kept", "one_in": 1},
    }
    with CameraProcess(folder, settings) as camera:
        assert camera.wait() == 0
    return folder / "kept"


@pytest.fixture(scope="module")
def line(agent: AgentProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the camera client kept of five pictures that `parts` answered."""
    folder = tmp_path_factory.mktemp("line")
    for name, brightness in BRIGHTNESS.items():
        put_picture(folder / "in", name, brightness)
    spotted = grey(255)
    spotted[:16] = 30
    Image.fromarray(spotted).save(folder / "in" / SPOTTED)
    return capture(agent, "parts", folder / "in", folder)


@pytest.fixture
def kept(line: Path, tmp_path: Path) -> Path:
    """A copy of it, somewhere else."""
    return Path(shutil.copytree(line, tmp_path / "fetched" / "kept"))


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def lines_of(kept: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (kept / "capture.manifest").read_text().splitlines()]


def write_lines(kept: Path, lines: list[dict[str, Any]]) -> Path:
    manifest = kept / "capture.manifest"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def with_labels(kept: Path) -> Path:
    """The same manifest after somebody has looked at the pictures: the spotted one alone is bad."""
    lines = lines_of(kept)
    for line in lines:
        is_bad = line["inspection"]["file"] == SPOTTED
        line["anomaly-label"] = int(is_bad)
        metadata = {"class-name": "anomaly" if is_bad else "normal", "type": "groundtruth/image-classification"}
        line["anomaly-label-metadata"] = metadata | {"human-annotated": "yes"}
    return write_lines(kept, lines)


class Told:
    """What a replay has written to the file of --json."""

    def __init__(self, file: Path) -> None:
        self.all = json.loads(file.read_text())
        self.pictures = {picture["file"]: picture for picture in self.all["pictures"]}

    def changed(self, what: str) -> set[str]:
        return {file for file, picture in self.pictures.items() if picture["changed"] == what}


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., tuple[int, Told]]:
    def replayed(*arguments: object) -> tuple[int, Told]:
        code = run("replay", *arguments, "--json", tmp_path / "told.json")
        return code, Told(tmp_path / "told.json")

    return replayed


def test_the_model_of_then_says_the_same_again(agent: AgentProcess, kept: Path, replay, capsys) -> None:
    code, told = replay(kept, "--agent", agent.socket, "--fail-on", "any")
    assert code == 0
    assert told.changed("nothing") == set(BRIGHTNESS)
    assert (told.all["models_then"], told.all["models_now"]) == ("parts 1.0.0", "parts 1.0.0")
    spotted = told.pictures[SPOTTED]
    assert spotted["then"] == spotted["now"] and spotted["then"]["areas"] == {"anomaly": 0.25}
    assert (spotted["mask_iou"], spotted["score_change"], spotted["camera"]) == (1.0, 0.0, "line-1")
    assert "parts 1.0.0 then, parts 1.0.0 now: 5 captured pictures" in capsys.readouterr().out


def test_a_package_says_the_same_as_the_agent_that_served_it(packages: Path, kept: Path, replay) -> None:
    code, told = replay(kept / "capture.manifest", "--package", packages / "parts", "--fail-on", "any")
    assert (code, told.all["models_now"]) == (0, "tiny 1.0.0")
    assert told.changed("nothing") == set(BRIGHTNESS)


def test_another_model_of_the_agent_changes_a_verdict(agent: AgentProcess, kept: Path, replay, capsys) -> None:
    code, told = replay(kept, "--agent", agent.socket, "--model", "strict", "--fail-on", "verdict")
    assert code == 3
    assert told.changed("verdict") == {"3.png"}
    assert told.changed("figures") == set(BRIGHTNESS) - {"3.png"}, "the threshold is another one for all"
    assert told.all["counts"]["normal_to_anomalous"] == 1 and told.all["counts"]["anomalous_to_normal"] == 0
    turned = told.all["pictures"][0]
    assert turned["file"] == "3.png", "the greatest change comes first"
    assert (turned["then"]["is_anomalous"], turned["now"]["is_anomalous"]) == (False, True)
    assert (turned["then"]["anomaly_threshold"], turned["now"]["anomaly_threshold"]) == (0.5, 0.45)
    assert (turned["then"]["areas"], turned["now"]["areas"]) == ({}, {"anomaly": 1.0})
    assert (turned["mask_iou"], turned["verdict_then"]) == (0.0, "uncertain")
    printed = " ".join(capsys.readouterr().out.split())
    assert "normal -> anomalous 1" in printed
    assert "normal -> anomalous 0.4902 0.5000 -> 0.4500 anomaly 0.00% -> 100.00% 0.000" in printed


def test_without_fail_on_a_change_is_no_failure(packages: Path, kept: Path) -> None:
    assert run("replay", kept, "--package", packages / "strict") == 0


def test_a_threshold_that_was_tuned_on_the_device_shows(agent: AgentProcess, kept: Path, replay) -> None:
    stub = agent.stub()

    def threshold() -> float:
        return round(detect(stub, inline_request("parts", grey(255))).anomaly_threshold, 4)

    try:
        assert run("tune", "parts", "--threshold", "0.6", "--registry", agent.registry) == 0
        wait_for("the agent to follow", lambda: threshold() == 0.6)
        code, told = replay(kept, "--agent", agent.socket, "--fail-on", "verdict")
    finally:
        run("tune", "parts", "--reset", "--registry", agent.registry)
        wait_for("the agent to follow", lambda: threshold() == 0.5)
    assert (code, told.changed("verdict")) == (3, {"4.png"})
    assert told.all["counts"]["anomalous_to_normal"] == 1


def test_only_pictures_of_one_verdict_are_replayed(packages: Path, kept: Path, replay) -> None:
    _, told = replay(kept, "--only", "uncertain", "--package", packages / "parts")
    assert set(told.pictures) == {"3.png", "4.png"}
    _, told = replay(kept, "--only", "uncertain", "--only", "reject", "--package", packages / "parts")
    assert set(told.pictures) == {"3.png", "4.png", SPOTTED}


def test_pictures_of_several_cameras_are_asked_of_the_model_that_each_one_had(
    agent: AgentProcess, kept: Path, replay
) -> None:
    other = Path(shutil.copytree(kept, kept.parent / "line-2"))
    write_lines(other, [line | {"inspection": line["inspection"] | {"model": "strict"}} for line in lines_of(other)])
    code, told = replay(kept.parent, kept, "--agent", agent.socket)
    assert code == 0
    assert told.all["models_now"] == "parts 1.0.0 and strict 2.0.0"
    assert told.all["counts"]["replayed"] == 10, "a folder named twice counts once"
    changed_in = {picture["manifest"] for picture in told.all["pictures"] if picture["changed"] != "nothing"}
    assert changed_in == {str(other / "capture.manifest")}


def test_a_model_without_masks_is_compared_by_its_scores(packages: Path, kept: Path, replay) -> None:
    code, told = replay(kept, "--package", packages / "numbers")
    assert code == 0
    assert told.pictures["1.png"]["mask_iou"] is None
    assert told.pictures["1.png"]["score_change"] == 1.0, "its score is the first pixel's red"


# --- what can be wrong with the folder ---


def test_pictures_that_are_missing_damaged_or_scaled_cost_only_themselves(
    packages: Path, kept: Path, replay, capsys
) -> None:
    missing, damaged, scaled, lost_mask, _ = (kept / line["source-ref"] for line in lines_of(kept))
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:80])
    Image.new("RGB", (WIDTH * 2, HEIGHT * 2)).save(scaled)
    lost_mask.with_name(f"{lost_mask.stem}-mask.png").unlink()
    code, told = replay(kept, "--package", packages / "parts", "--fail-on", "any")
    assert code == 1
    assert told.changed("nothing") == {"4.png", SPOTTED}
    assert told.pictures["4.png"]["mask_iou"] is None
    why = {unanswered["picture"]: unanswered["why"] for unanswered in told.all["unanswered"]}
    assert "there is no file" in why[missing.name] and "--root" in why[missing.name]
    assert "Replace it" in why[damaged.name]
    assert "is 192x128, but was captured as 96x64. Put back the file" in why[scaled.name]
    printed = capsys.readouterr().err
    assert all(sentence in printed for sentence in why.values())
    assert f"{lost_mask.name}: its mask of then is not compared" in printed


def test_a_picture_that_the_model_refuses_is_named(packages: Path, kept: Path, tmp_path: Path, capsys) -> None:
    larger = make_package(tmp_path / "larger", width=128)
    assert run("replay", kept, "--package", larger) == 1
    assert "None of the 5 captured pictures could be replayed. The first one: The image is" in capsys.readouterr().err


def test_lines_that_cannot_be_used_are_named_and_the_others_count(packages: Path, kept: Path, replay) -> None:
    good, foreign, strange, *_ = lines_of(kept)
    foreign.pop("inspection")
    strange["inspection"]["anomaly_score"] = 7
    manifest = write_lines(kept, [good, foreign, strange])
    manifest.write_text(manifest.read_text() + '{"source-ref": "pictures/line-1')  # the power failed
    code, told = replay(kept, "--package", packages / "parts")
    assert (code, set(told.pictures)) == (1, {"1.png"})
    second, third, fourth = (unanswered["why"] for unanswered in told.all["unanswered"])
    assert "line 2: there is no 'inspection'" in second
    assert "line 3: 'inspection' is not as the camera client writes it" in third and "anomaly_score" in third
    assert "line 4: this is no JSON" in fourth


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["in"], 1, "No captured pictures in in: there is no capture.manifest. Give the folder"),
        (["kept", "--only", "pass", "--root", "x"], 1, "whose verdict was pass"),
        (["kept", "--package", "nothing"], 1, "There is no package nothing"),
        (["kept", "--agent", "absent.sock"], 1, "UNAVAILABLE"),
        (["kept", "--tolerance", "1.5"], 2, "--tolerance is 1.5"),
        (["kept", "--package", "p", "--model", "strict"], 2, "--model is strict, but must be left out"),
        (["kept", "--package", "p", "--agent"], 2, "--agent is"),
    ],
)
def test_what_cannot_be_done_is_said(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list[str], code: int, sentence: str
) -> None:
    (kept.parent / "in").mkdir()
    write_lines(kept, [line for line in lines_of(kept) if line["inspection"]["verdict"] != "pass"])
    monkeypatch.chdir(kept.parent)
    assert run("replay", *arguments) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--pictures"])
def test_a_place_that_cannot_be_written_is_said_with_its_option(packages: Path, kept: Path, capsys, option) -> None:
    assert run("replay", kept, "--package", packages / "parts", option, kept / "capture.manifest" / "x") == 1
    assert f"Choose another {option}" in capsys.readouterr().err


def test_what_nobody_reads_to_its_end_is_written_all_the_same(
    packages: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    assert run("replay", kept, "--package", packages / "parts", "--json", tmp_path / "told.json") == 1
    assert Told(tmp_path / "told.json").all["counts"]["unchanged"] == 5


# --- pictures of what changed ---


def test_changed_pictures_are_shown_as_they_were_answered_then_and_now(
    packages: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "ON_A_SHEET", 1)
    seen = tmp_path / "seen"
    assert run("replay", kept, "--package", packages / "strict", "--pictures", seen) == 0
    assert [path.name for path in sorted(seen.iterdir())] == [f"changed-{number:03}.png" for number in range(1, 6)]
    first = np.asarray(Image.open(seen / "changed-001.png").convert("RGB")).astype(int)
    left, right = np.array_split(first[: sheets.TILE_WIDTH // 2], 2, axis=1)

    def green(half: np.ndarray) -> float:
        return float((half[..., 1] - half[..., 0] > 20).mean())

    assert green(left) < 0.01 < 0.5 < green(right), "nothing was found then; now it is all of the picture"

    assert run("replay", kept, "--package", packages / "parts", "--pictures", seen) == 0
    assert not list(seen.iterdir()), "what an earlier replay has shown is gone"


def test_labels_tell_which_changes_are_for_the_better(packages: Path, kept: Path, tmp_path: Path, capsys) -> None:
    manifest = with_labels(kept)
    assert run("replay", manifest, "--package", packages / "strict", "--pictures", tmp_path / "seen") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "normal -> anomalous (by their labels 0 right now, 1 wrong) 1" in printed
    assert "normal -> anomalous normal 0.4902" in printed, "verdicts, what the label says, score"
    with Image.open(tmp_path / "seen" / "changed-001.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in (RIGHT, WRONG)} <= colours


# --- the way of a captured picture, beyond replays ---


def test_what_is_captured_is_a_ground_truth_manifest(line: Path) -> None:
    """The keys of detected labels and masks, as the original service's evaluation manifests have them."""
    for told in lines_of(line):
        assert not Path(told["source-ref"]).is_absolute() and (line / told["source-ref"]).is_file()
        assert told["anomaly-label-detected"] in (0, 1)
        label, mask = told["anomaly-label-detected-metadata"], told["anomaly-mask-ref-detected-metadata"]
        assert label["class-name"] == ("anomaly" if told["anomaly-label-detected"] else "normal")
        assert label["type"] == "groundtruth/image-classification" and 0 <= label["confidence"] <= 1
        assert mask["type"] == "groundtruth/semantic-segmentation"
        assert all({"human-annotated", "creation-date", "job-name"} <= metadata.keys() for metadata in (label, mask))
        first, *others = (mask["internal-color-map"][str(number)] for number in range(len(mask["internal-color-map"])))
        assert (first["class-name"], first["hex-color"]) == ("background", "#FFFFFF")
        assert first["total-percentage-area"] + sum(one["total-percentage-area"] for one in others) == pytest.approx(1)


@pytest.mark.parametrize(
    "command", ["evaluate {package} {manifest}", "tune {package} {manifest} --best-f1", "fit {manifest}"]
)
def test_a_manifest_that_nobody_has_labelled_is_met_with_what_to_do(
    packages: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.format(package=packages / "parts", manifest=kept / "capture.manifest").split()
    assert run(*words) == 1
    said = capsys.readouterr().err
    assert "None of the 5 pictures is labelled yet" in said and "'normal/' or 'anomaly/'" in said


def test_labels_make_it_a_test_set_wherever_the_folder_is(packages: Path, kept: Path, tmp_path: Path, capsys) -> None:
    manifest = with_labels(kept)
    assert [image.is_anomalous for image in labelled_images(str(manifest))] == [False] * 4 + [True]
    assert len(good_images(str(manifest))) == 4
    assert run("evaluate", packages / "parts", manifest, "--output", tmp_path / "out") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["truth:", "normal", "3", "1"] in rows and ["truth:", "anomalous", "0", "1"] in rows
    assert run("tune", packages / "parts", manifest, "--best-f1") == 0
    assert "F1 0.6667 1.0000" in " ".join(capsys.readouterr().out.split())


def test_references_into_a_bucket_lead_to_the_folder_that_was_fetched(packages: Path, kept: Path, replay) -> None:
    lines = lines_of(kept)
    for line in lines:
        for key in ("source-ref", "anomaly-mask-ref-detected"):
            line[key] = f"s3://bucket/lines/kept/{line[key]}"
    manifest = write_lines(kept, lines).rename(kept.parent / "labelled.manifest")
    code, told = replay(manifest, "--root", kept, "--package", packages / "parts", "--fail-on", "any")
    assert (code, told.changed("nothing")) == (0, set(BRIGHTNESS))


def test_masks_beside_the_pictures_are_no_pictures(kept: Path) -> None:
    assert len(list((kept / "pictures").iterdir())) == 10
    pictures = {kept / line["source-ref"] for line in lines_of(kept)}
    assert {image.path for image in good_images(str(kept / "pictures"))} == pictures
    assert {image.path for image in labelled_images(f"{kept}/*/*.png")} == pictures


def test_pictures_that_somebody_copied_into_folders_are_labelled_and_the_others_are_not(kept: Path) -> None:
    shutil.copytree(kept / "pictures", kept / "normal")
    assert [image.is_anomalous for image in labelled_images(str(kept))] == [False] * 5


# --- how much two answers differ ---

BEFORE = Detection(True, 0.6, 0.6, 0.5, (Region("background", 0.9, "#FFFFFF"), Region("scratch", 0.1, "#23A436")))
SAME_MASK = MaskChange(1.0, 0.0)


@pytest.mark.parametrize(
    ("now", "masks", "change"),
    [
        (BEFORE, SAME_MASK, Change.NOTHING),
        (Detection(True, 0.61, 0.61, 0.5, BEFORE.regions), SAME_MASK, Change.NOTHING),
        (Detection(True, 0.611, 0.611, 0.5, BEFORE.regions), SAME_MASK, Change.FIGURES),
        (Detection(True, 0.6, 0.6, 0.5001, BEFORE.regions), SAME_MASK, Change.FIGURES),
        (Detection(True, 0.6, 0.6, 0.5, BEFORE.regions[:1]), SAME_MASK, Change.FIGURES),
        (Detection(True, 0.6, 0.6, 0.5, (*BEFORE.regions, Region("dent", 0.02, "#14A3B3"))), None, Change.FIGURES),
        (BEFORE, MaskChange(0.8, 0.02), Change.FIGURES),
        (Detection(False, 0.4, 0.6, 0.61, BEFORE.regions), SAME_MASK, Change.VERDICT),
    ],
)
def test_what_counts_as_a_change(now: Detection, masks: MaskChange | None, change: Change) -> None:
    assert change_between(BEFORE, now, masks, tolerance=0.01) is change


def test_masks_are_compared_by_what_they_mark() -> None:
    then, now = grey(255), grey(255)
    assert mask_change(then, now) == MaskChange(1.0, 0.0)
    then[:16] = (0x23, 0xA4, 0x36)
    now[8:24] = (0x14, 0xA3, 0xB3)
    assert mask_change(then, now) == MaskChange(pytest.approx(8 / 24), pytest.approx(16 / HEIGHT))


# --- real photographs ---


@pytest.mark.real_data
@pytest.mark.skipif(not COOKIES.is_dir(), reason="the photographs (../shared/data/cookies) are not here")
def test_photographs_get_the_same_answer_from_what_was_kept_of_them(tmp_path: Path, replay) -> None:
    good = COOKIES / "training-images" / "normal-1*.jpg"
    assert run("fit", good, "--name", "cookies", "--size", 96, "--output", tmp_path / "package") == 0
    with AgentProcess() as agent:
        agent.run_model("cookies", tmp_path / "package")
        kept = capture(agent, "cookies", COOKIES / "test-images", tmp_path)
        captured = len(lines_of(kept))  # a machine that is busy may be asked for more than it can keep
        code, told = replay(kept, "--agent", agent.socket, "--tolerance", 0, "--fail-on", "any")
        assert (code, told.all["counts"]["unchanged"]) == (0, captured)
    code, told = replay(kept, "--package", tmp_path / "package", "--tolerance", 0, "--fail-on", "any")
    assert (code, told.all["counts"]["unchanged"]) == (0, captured)
    assert captured > 1
