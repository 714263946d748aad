"""`edge-agent evaluate`: what it counts, prints and writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from agent import cli
from agent.images.detection import Detection, Region
from agent.workbench.contact_sheet import GAP, TILE_WIDTH
from agent.workbench.dataset.labelled_images import LabelledImage, labelled_images
from agent.workbench.errors import ImageNotInspected, NoLabelledImages, NothingInspected
from agent.workbench.evaluation.comparison import changed_verdicts, differences
from agent.workbench.evaluation.evaluation import Evaluation, evaluate
from agent.workbench.evaluation.mistakes import kind_of, mistakes_sheet, worst_first
from agent.workbench.evaluation.report import report
from agent.workbench.evaluation.result_files import evaluation_manifest, evaluation_result
from agent.workbench.inspection.inspector import InspectedModel
from agent.workbench.overlay import TRUTH, overlay
from tests.support.agent_process import AgentProcess, wait_for
from tests.support.agent_process import names as components
from tests.support.packages import HEIGHT, WIDTH, changed, grey, make_package
from tests.workbench.test_evaluate_metrics import by_ranks, by_steps

ENDED = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=timezone.utc)
ARN = "arn:aws:lookoutvision:eu-central-1:123456789012:model/bolts/7"
SCHEMA = Path(__file__).with_name("evaluation_result.schema.json")
GREEN = (0x23, 0xA4, 0x36)


class FirstPixel:
    """An inspector whose score is the first pixel's red; its mask marks every pixel of that colour."""

    def __init__(self, threshold: float = 0.5, masks: bool = False) -> None:
        self.model = InspectedModel("bolts", "7.0.0", ARN, threshold, training_images=31)
        self._threshold, self._masks = threshold, masks

    def inspect(self, pixels: NDArray[np.uint8]) -> Detection:
        if pixels.shape[:2] != (HEIGHT, WIDTH):
            raise ImageNotInspected(f"The image is {pixels.shape[1]} x {pixels.shape[0]}.")
        score = round(float(pixels[0, 0, 0]) / 255, 4)
        verdict = score >= self._threshold
        detection = Detection(verdict, score if verdict else round(1 - score, 4), score, self._threshold)
        return detection if not self._masks else self._with_mask(detection, pixels)

    @staticmethod
    def _with_mask(detection: Detection, pixels: NDArray[np.uint8]) -> Detection:
        found = pixels[..., 0] >= 128
        mask = np.where(found[..., None], np.array(GREEN, np.uint8), np.uint8(255))
        area = float(found.mean())
        regions = (Region("background", 1 - area, "#FFFFFF"), Region("chip", area, "#23A436"))
        verdict = (detection.is_anomalous, detection.confidence, detection.score, detection.threshold)
        return Detection(*verdict, regions=regions if area else regions[:1], mask=mask)


def draw(path: Path, red: int, rows: int = HEIGHT, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """An image whose first `rows` rows are of this red, the rest black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:rows, :, 0] = red
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images of which one looks bad, three bad ones of which one looks good."""
    source = tmp_path / "parts"
    for name, red in (("normal/1", 20), ("normal/2", 200), ("anomaly/3", 250), ("anomaly/4", 130), ("anomaly/5", 100)):
        draw(source / f"{name}.png", red)
    return source


def evaluated(source: Path, inspector: FirstPixel, masks: Path) -> Evaluation:
    return evaluate(inspector, labelled_images(str(source)), masks, lambda: None)


def outcome(evaluation: Evaluation) -> dict[str, str]:
    return {answer.image.path.stem: kind_of(answer) for answer in evaluation.answers}


def test_every_labelled_image_is_compared_with_its_truth(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluated(folder, FirstPixel(), tmp_path / "masks")
    assert outcome(evaluation) == {"1": "right", "2": "false alarm", "3": "right", "4": "right", "5": "missed"}
    counts = evaluation.metrics.counts
    assert (counts.true_positives, counts.false_positives, counts.false_negatives) == (2, 1, 1)
    assert evaluation.metrics.roc_auc == by_ranks(evaluation.truth, evaluation.scores) == pytest.approx(4 / 6)
    assert not (tmp_path / "masks").exists()


def test_unlabelled_images_and_those_that_the_model_refuses_are_named_and_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "normal-1.png", 20)
    draw(tmp_path / "anomaly-1.png", 200, size=(64, 64))
    draw(tmp_path / "photo.png", 200)
    inspected = []
    images = labelled_images(str(tmp_path))
    evaluation = evaluate(FirstPixel(), images, tmp_path / "masks", lambda: inspected.append(1))
    assert [answer.image.path.name for answer in evaluation.answers] == ["normal-1.png"]
    assert [path.name for path in evaluation.unlabelled] == ["photo.png"]
    assert [(path.name, why) for path, why in evaluation.refused] == [("anomaly-1.png", "The image is 64 x 64.")]
    assert len(inspected) == 2


def test_a_damaged_image_or_mask_costs_only_itself(masked: Path, tmp_path: Path) -> None:
    whole = draw(masked / "anomaly" / "3.png", 200).read_bytes()
    (masked / "anomaly" / "3.png").write_bytes(whole[: len(whole) - 30])
    draw(masked / "anomaly" / "4.png", 200)
    draw(masked / "masks" / "4.png", 200, size=(64, 64))
    evaluation = evaluated(masked, FirstPixel(), tmp_path / "masks")
    assert [(path.name, why.split(".png")[1][:20]) for path, why in evaluation.refused] == [
        ("3.png", " cannot be read as a"),
        ("4.png", " is 64x64, but its i"),
    ]
    assert [answer.image.path.name for answer in evaluation.answers] == ["1.png", "2.png"]


def test_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "photo.png", 20)
    with pytest.raises(NoLabelledImages, match=r"None of the 1 images is labelled.*'normal/' and 'anomaly/'"):
        evaluated(tmp_path, FirstPixel(), tmp_path / "masks")
    draw(tmp_path / "small" / "normal-1.png", 20, size=(64, 64))
    with pytest.raises(NothingInspected, match=r"None of the 1 labelled images got an answer.*64 x 64"):
        evaluated(tmp_path / "small", FirstPixel(), tmp_path / "masks")


def test_fewer_than_ten_of_a_class_is_a_warning(tmp_path: Path) -> None:
    for number in range(10):
        draw(tmp_path / f"normal-{number}.png", 20)
    draw(tmp_path / "anomaly-1.png", 200)
    warnings = evaluated(tmp_path, FirstPixel(), tmp_path / "masks").warnings
    assert [warning.split(":")[0] for warning in warnings] == ["1 anomalous image"]


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """An anomalous image whose upper half is found and whose first 48 rows are drawn in the truth; and a good one."""
    draw(tmp_path / "parts" / "anomaly" / "1.png", 200, rows=HEIGHT // 2)
    draw(tmp_path / "parts" / "normal" / "2.png", 20)
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[:48] = 255
    (tmp_path / "parts" / "masks").mkdir()
    Image.fromarray(truth).save(tmp_path / "parts" / "masks" / "1.png")
    return tmp_path / "parts"


def test_masks_are_compared_and_kept(masked: Path, tmp_path: Path) -> None:
    evaluation = evaluated(masked, FirstPixel(masks=True), tmp_path / "masks")
    (chip,) = evaluation.classes
    assert (chip.name, chip.counts.precision, chip.counts.recall) == ("chip", 1, 32 / 48)
    assert chip.average_iou == 32 / 48
    first = evaluation.answers[0]
    assert first.mask == tmp_path / "masks" / "1.png" and first.detection.mask is None
    with Image.open(first.mask) as kept:
        assert (np.asarray(kept)[: HEIGHT // 2] == GREEN).all() and (np.asarray(kept)[HEIGHT // 2 :] == 255).all()


def test_images_of_one_name_keep_their_masks_apart(tmp_path: Path) -> None:
    draw(tmp_path / "parts" / "anomaly" / "1.png", 200)
    draw(tmp_path / "parts" / "normal" / "1.png", 20)
    evaluation = evaluated(tmp_path / "parts", FirstPixel(masks=True), tmp_path / "masks")
    assert [answer.mask.name for answer in evaluation.answers if answer.mask] == ["1.png", "1-2.png"]


@pytest.mark.parametrize("masks", [False, True])
def test_the_result_file_is_as_the_original_service_wrote_it(masked: Path, tmp_path: Path, masks: bool) -> None:
    evaluation = evaluated(masked, FirstPixel(masks=masks), tmp_path / "masks")
    result = evaluation_result(evaluation, ENDED)
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    assert result["EvaluationDetails"] == {
        "ModelArn": ARN,
        "EvaluationEndTimestamp": "2026-01-02T03:04:05.678900",
        "NumberOfTrainingImages": 31,
        "NumberOfTestingImages": 2,
    }
    metrics = result["AggregatedEvaluationResults"]["Metrics"]
    assert (metrics["ROCAUC"], metrics["F1Score"]) == (1, 1)
    assert [one["ClassName"] for one in metrics["PixelAnomalyClassMetrics"]] == (["chip"] if masks else [])


def test_the_manifest_keeps_the_truth_and_adds_what_was_detected(masked: Path, tmp_path: Path) -> None:
    evaluation = evaluated(masked, FirstPixel(masks=True), tmp_path / "out" / "masks")
    line, good = evaluation_manifest(evaluation, tmp_path / "out", ENDED)
    truth = evaluation.answers[0].image.entry
    assert {key: line[key] for key in truth} == truth
    added: dict[str, Any] = {key: value for key, value in line.items() if key not in truth}
    common = {"human-annotated": "no", "creation-date": "2026-01-02T03:04:05.678900"}
    common["job-name"] = added["anomaly-label-detected-metadata"]["job-name"]
    assert added == {
        "anomaly-label-detected": 1,
        "anomaly-label-detected-metadata": {
            "class-name": "anomaly",
            "confidence": 0.7843,
            "type": "groundtruth/image-classification",
            "model-arn": ARN,
            "project-name": "bolts",
            "model-version": "7.0.0",
            **common,
        },
        "anomaly-mask-ref-detected": "masks/1.png",
        "anomaly-mask-ref-detected-metadata": {
            "internal-color-map": {
                "0": {"class-name": "background", "hex-color": "#FFFFFF", "total-percentage-area": 0.5},
                "1": {"class-name": "chip", "hex-color": "#23A436", "total-percentage-area": 0.5},
            },
            "type": "groundtruth/semantic-segmentation",
            **common,
        },
    }
    assert (good["anomaly-label-detected"], good["anomaly-label-detected-metadata"]["class-name"]) == (0, "normal")


def test_the_worst_mistake_comes_first_and_the_surest_right_verdict_last(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluated(folder, FirstPixel(), tmp_path / "masks")
    assert [answer.image.path.stem for answer in worst_first(evaluation.answers)] == ["2", "5", "4", "1", "3"]
    sheet = mistakes_sheet(evaluation, "bolts")
    assert sheet.width == GAP + 4 * (TILE_WIDTH + GAP)


def test_the_report_draws_the_counts_the_threshold_and_the_curve(folder: Path, tmp_path: Path) -> None:
    evaluation = evaluated(folder, FirstPixel(), tmp_path / "masks")
    scores, confusion, roc, precision = report(evaluation, "bolts").axes
    assert sum(patch.get_height() for patch in scores.patches) == 5
    assert scores.lines[0].get_xdata()[0] == 0.5
    assert [text.get_text() for text in confusion.texts][::2] == ["1", "1", "1", "2"]
    x, y = (np.asarray(values) for values in roc.lines[1].get_data())
    assert ((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(evaluation.metrics.roc_auc)
    at_threshold = precision.lines[-1]
    assert at_threshold.get_xdata()[0] == at_threshold.get_ydata()[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_no_bar_of_the_report_is_on_both_sides_of_the_threshold(folder: Path, tmp_path: Path, threshold: float) -> None:
    draw(folder / "anomaly" / "6.png", 255)
    scores = report(evaluated(folder, FirstPixel(threshold), tmp_path / "masks"), "bolts").axes[0]
    bars = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in scores.patches]
    assert all(right <= threshold + 1e-9 or left >= threshold - 1e-9 for left, right in bars)
    assert sum(patch.get_height() for patch in scores.patches) == 6


@pytest.mark.parametrize(("kind", "red"), [("normal", 20), ("anomaly", 200)])
def test_a_report_of_one_class_says_what_is_missing(tmp_path: Path, kind: str, red: int) -> None:
    draw(tmp_path / f"{kind}-1.png", red)
    page = report(evaluated(tmp_path, FirstPixel(), tmp_path / "masks"), "bolts")
    assert [text.get_text() for text in page.axes[2].texts] == ["needs normal and anomalous images"]
    page.savefig(tmp_path / "page.png")


def test_an_overlay_tints_what_was_found_and_lines_what_is_true() -> None:
    mask = np.full((64, 100, 3), 255, np.uint8)
    mask[:32, :40] = GREEN
    truth = np.zeros((64, 100), np.bool_)
    truth[:32, 60:80] = True
    shown = np.asarray(overlay(grey(100, 100, 64), mask, truth, 100)).astype(int)
    assert shown[10, 10, 1] > shown[10, 10, 0], "tinted green"
    assert tuple(shown[10, 39]) == GREEN, "outlined"
    assert tuple(shown[10, 81]) == TRUTH and tuple(shown[33, 70]) == TRUTH
    assert (shown[10, 70] == 100).all() and (shown[60, 50] == 100).all(), "the rest is as it was"


def test_two_models_are_compared_figure_by_figure_and_image_by_image(folder: Path, tmp_path: Path) -> None:
    first = evaluated(folder, FirstPixel(), tmp_path / "1")
    second = evaluated(folder, FirstPixel(threshold=0.35), tmp_path / "2")
    change = {one.figure: one.change for one in differences(first, second)}
    assert change["recall"] == pytest.approx(1 / 3) and change["ROC AUC"] == 0
    assert [(one.image.path.stem, kind_of(one), kind_of(other)) for one, other in changed_verdicts(first, second)] == [
        ("5", "missed", "right")
    ]


# --- the command ---


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that calls dark anomalous and marks it; labelled images, and a mask."""
    folder = tmp_path_factory.mktemp("tiny")
    make_package(folder / "package", version="2.0.0")
    make_package(
        folder / "stricter",
        version="2.1.0",
        change=lambda one: changed(one, decision=changed(one.decision, threshold=0.9)),
    )
    (folder / "images" / "normal").mkdir(parents=True)
    (folder / "images" / "anomaly").mkdir()
    for number, level in enumerate((255, 230, 100)):
        Image.fromarray(grey(level)).save(folder / "images" / "normal" / f"{number}.png")
    for number, level in enumerate((0, 60, 200)):
        spotted = grey(255)
        spotted[:16] = level
        Image.fromarray(spotted).save(folder / "images" / "anomaly" / f"{number}.png")
        spot = np.zeros((HEIGHT, WIDTH), np.uint8)
        spot[:20] = 255
        (folder / "images" / "masks").mkdir(exist_ok=True)
        Image.fromarray(spot).save(folder / "images" / "masks" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def serving(tiny: Path) -> Iterator[AgentProcess]:
    with AgentProcess() as agent:
        agent.register("tiny", tiny / "package", version="2.0.0")
        wait_for("the component to be listed", lambda: components(agent.stub()) == ["tiny"])
        yield agent


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the lines that name files."""
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if not line.startswith("Wrote "))


@pytest.mark.parametrize("flags", [[], ["--shared-memory"]])
def test_a_package_and_the_agent_that_serves_it_are_told_the_same_of(
    tiny: Path, serving: AgentProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert run("evaluate", tiny / "package", tiny / "images", "--output", tmp_path, "--name", "alone") == 0
    alone = told(capsys)
    agent = ["--agent", f"unix://{serving.socket}", *flags]
    assert run("evaluate", "tiny", tiny / "images", *agent, "--output", tmp_path, "--name", "served") == 0
    assert told(capsys) == alone
    assert (tmp_path / "Answers-alone.csv").read_text() == (tmp_path / "Answers-served.csv").read_text()
    assert "called anomalous" in alone and "anomaly" in alone


def test_the_command_prints_tables_and_names_what_it_wrote(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", tiny / "package", tiny / "images", "--output", tmp_path / "out") == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert ["truth:", "normal", "2", "1"] in rows and ["truth:", "anomalous", "1", "2"] in rows
    assert ["precision", "0.6667"] in [row[:2] for row in rows]
    # The spots of 16 rows of which the truth draws 20 are found, but for the palest; and all of a good image.
    assert ["anomaly", "0.3333", "0.5333", "0.4103", "0.4000", "4"] in rows
    assert ["2.png", "false", "alarm", "0.6078", "0.5000"] in rows and ["2.png", "missed", "0.2157", "0.5000"] in rows
    assert "3 good images: use at least 10" in printed.err and "3 anomalous images" in printed.err
    made = {path.name for path in (tmp_path / "out").iterdir()}
    stem = "tiny-2.0.0"
    assert made == {
        f"EvaluationResult-{stem}.json",
        f"EvaluationManifest-{stem}.json",
        f"Answers-{stem}.csv",
        f"Report-{stem}.png",
        f"Mistakes-{stem}.png",
        f"masks-{stem}",
    }
    assert all(str(tmp_path / "out" / name) in printed.out for name in made)


def test_two_packages_are_told_side_by_side(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", tiny / "package", tiny / "images", "--compare", tiny / "stricter", "--output", tmp_path]
    assert run(*command) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["precision", "0.6667", "1.0000", "+0.3333"] in rows
    assert ["2.png", "normal", "anomalous", "0.6078", "(wrong)", "normal", "0.6078"] in rows
    assert (tmp_path / "EvaluationResult-tiny-2.1.0.json").is_file()


def test_a_package_compared_with_itself_keeps_both_files(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", tiny / "package", tiny / "images", "--compare", tiny / "package", "--output", tmp_path]
    assert run(*command) == 0
    assert "Both give the same verdict on every image." in capsys.readouterr().out
    assert (tmp_path / "Answers-tiny-2.0.0.csv").read_text() == (tmp_path / "Answers-tiny-2.0.0-2.csv").read_text()


def test_an_image_of_another_size_is_named_and_the_exit_code_tells(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, size in (("normal/1.png", (WIDTH, HEIGHT)), ("anomaly/2.png", (80, 80))):
        draw(tmp_path / "images" / path, 255, size=size)
    Image.fromarray(grey(200)).save(tmp_path / "images" / "photo.png")
    assert run("evaluate", tiny / "package", tmp_path / "images", "--output", tmp_path / "out") == 1
    assert "they could not be compared: 2.png. The first one: The image is 80 x 80" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nothing", "images"], 1, "There is no package nothing"),
        (["package", "images", "--compare", "nothing"], 1, "There is no package nothing"),
        (["package", "nowhere"], 1, "No images found in nowhere"),
        (["package", "images", "--name", "a/b"], 2, "--name is 'a/b'"),
        (["package", "images", "--shared-memory"], 2, "--agent"),
        (["package", "images", "--output", "package/manifest.json"], 1, "cannot be written"),
        (["package", "images", "--agent", "absent.sock"], 1, "UNAVAILABLE"),
    ],
)
def test_what_cannot_be_done_is_said(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tiny)
    assert run("evaluate", *arguments) == code
    assert sentence in capsys.readouterr().err


# --- real photographs ---

COOKIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cookies"
real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not COOKIES.is_dir(), reason="the photographs (../shared/data/cookies) are not here"),
]


@pytest.fixture(scope="module")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package made of 31 good biscuits, looked at coarsely: quick, and not without mistakes."""
    package = tmp_path_factory.mktemp("cookies") / "package"
    good = COOKIES / "training-images" / "normal-*.jpg"
    assert run("fit", good, "--name", "cookies", "--size", 128, "--output", package) == 0
    return package


class TestRealPhotographs:
    pytestmark = real_data

    def test_figures_through_an_agent_are_those_of_its_scores(self, cookies: Path, tmp_path: Path) -> None:
        with AgentProcess() as agent:
            agent.register("cookies", cookies)
            wait_for("the component to be listed", lambda: components(agent.stub()) == ["cookies"])
            command = ["evaluate", "cookies", COOKIES / "test-images", "--agent", agent.socket, "--output", tmp_path]
            assert run(*command, "--name", "agent") == 0
        with (tmp_path / "Answers-agent.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        truth = np.array([row["truth"] == "anomaly" for row in rows])
        assert truth.tolist() == ["anomaly" in Path(row["image"]).name for row in rows] and truth.sum() == 8
        scores = np.array([float(row["score"]) for row in rows])
        called = scores >= np.array([float(row["threshold"]) for row in rows])
        result = json.loads((tmp_path / "EvaluationResult-agent.json").read_text())
        jsonschema.validate(result, json.loads(SCHEMA.read_text()))
        metrics = result["AggregatedEvaluationResults"]["Metrics"]
        assert metrics["ROCAUC"] == pytest.approx(by_ranks(truth, scores), abs=1e-9)
        assert metrics["AveragePrecision"] == pytest.approx(by_steps(truth, scores), abs=1e-9)
        f1 = 2 * (called & truth).sum() / (called.sum() + truth.sum())
        assert metrics["F1Score"] == pytest.approx(f1, abs=1e-9) and f1 > 0.5

    def test_drawn_cracks_are_compared_with_what_was_found(self, cookies: Path, tmp_path: Path) -> None:
        manifest = tmp_path / "some.manifest"
        lines = (COOKIES / "manifests" / "train_segmentation.manifest").read_text().splitlines()
        manifest.write_text("\n".join([*lines[:4], *lines[-2:]]))  # anomaly-1 to anomaly-4, normal-30, normal-31
        assert run("evaluate", cookies, manifest, "--root", COOKIES, "--output", tmp_path, "--name", "cracks") == 0
        result = json.loads((tmp_path / "EvaluationResult-cracks.json").read_text())
        (cracked,) = result["AggregatedEvaluationResults"]["Metrics"]["PixelAnomalyClassMetrics"]
        assert cracked["ClassName"] == "cracked" and 0.05 < cracked["AIoU"] < 0.9
        written = [json.loads(line) for line in (tmp_path / "EvaluationManifest-cracks.json").read_text().splitlines()]
        truths = [json.loads(line) for line in (*lines[:4], *lines[-2:])]
        assert [{key: line[key] for key in truth} for line, truth in zip(written, truths, strict=True)] == truths
        images: list[LabelledImage] = labelled_images(str(tmp_path / "EvaluationManifest-cracks.json"), COOKIES)
        assert [image.is_anomalous for image in images] == [True] * 4 + [False] * 2
