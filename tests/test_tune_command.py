"""`edge-agent tune`: what it prints, what it sets, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from agent import cli
from agent.models.device_threshold import DeviceThreshold, Measured, write_threshold
from agent.models.registry import Record, Registry, remove_record, write_record
from agent.models.threshold_change import ThresholdChange, history
from agent.packages.manifest import Manifest
from tests.support.packages import changed, grey, make_package

GOOD = (12, 24, 36, 128)
"""The red values of the good images' first pixels; a classification package's score is that value / 255."""
ANOMALOUS = (120, 200, 240)


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """normal/ and anomaly/ with images whose first pixel carries the score."""
    for kind, values in (("normal", GOOD), ("anomaly", ANOMALOUS)):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for value in values:
            save(tmp_path / "images" / kind / f"{value}.png", value)
    return tmp_path / "images"


def save(path: Path, value: int) -> None:
    pixels = grey(0)
    pixels[0, 0, 0] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """With the component `plate`, a classification package."""
    write_record(tmp_path / "registry", Record("plate", "1.0.0", str(make_plate(tmp_path / "plate"))))
    return tmp_path / "registry"


def make_plate(folder: Path) -> Path:
    return make_package(folder, task="classification")


def threshold_in(registry: Path) -> float | None:
    found = Registry(registry).thresholds().get("plate")
    return found.threshold if isinstance(found, DeviceThreshold) else None


def figures(printed: str) -> dict[str, tuple[str, str]]:
    """The table: name to what is now and what is tuned."""
    rows = [line.split("  ") for line in printed.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: (row[1], row[2]) for row in cells if len(row) == 3}


# --- from images ---


@pytest.mark.parametrize(
    ("target", "threshold", "false_rejects", "misses"),
    [
        (("--max-false-reject", "0%"), 0.6432, "0 of 4 (0.0%)", "1 of 3 (33.3%)"),
        (("--max-false-reject", "25%"), 0.3059, "1 of 4 (25.0%)", "0 of 3 (0.0%)"),
        (("--max-miss", "0%"), 0.3059, "1 of 4 (25.0%)", "0 of 3 (0.0%)"),
        (("--best-f1",), 0.3059, "1 of 4 (25.0%)", "0 of 3 (0.0%)"),
        (("--cost-ratio", "1:10"), 0.6432, "0 of 4 (0.0%)", "1 of 3 (33.3%)"),
        (("--threshold", "0.9"), 0.9, "0 of 4 (0.0%)", "2 of 3 (66.7%)"),
    ],
)
def test_a_threshold_is_found_shown_and_set(
    registry: Path,
    images: Path,
    target: tuple[str, ...],
    threshold: float,
    false_rejects: str,
    misses: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("tune", "plate", images, *target, "--registry", registry) == 0
    shown = figures(capsys.readouterr().out)
    assert shown["threshold"] == ("0.5000", f"{threshold:.4f}")
    assert shown["false rejects"] == ("1 of 4 (25.0%)", false_rejects)
    assert shown["misses"] == ("1 of 3 (33.3%)", misses)
    assert shown["precision"][0] == shown["recall"][0] == shown["F1"][0] == "0.6667"
    assert threshold_in(registry) == threshold


def test_what_was_measured_goes_into_the_file_and_into_the_log(registry: Path, images: Path) -> None:
    assert run("tune", "plate", images, "--max-false-reject", "0.5%", "--registry", registry) == 0
    measured = Measured(good=4, anomalous=3, false_rejects=0, misses=1)
    on_device = Registry(registry).thresholds()["plate"]
    assert isinstance(on_device, DeviceThreshold)
    assert (on_device.version, on_device.measured) == ("1.0.0", measured)
    ((change,), damaged) = history(registry, "plate")
    assert change == ThresholdChange(
        when=on_device.set_at,
        who=on_device.set_by,
        action="set",
        component="plate",
        version="1.0.0",
        old=0.5,
        new=0.6432,
        target="at most 0.5% false rejects",
        measured=measured,
        images=str(images),
    )
    assert damaged == 0


def test_what_is_in_force_is_what_it_is_compared_with(
    registry: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("tune", "plate", "--threshold", "0.9", "--registry", registry)
    capsys.readouterr()
    run("tune", "plate", images, "--best-f1", "--registry", registry)
    assert figures(capsys.readouterr().out)["threshold"] == ("0.9000", "0.3059")
    # What was set for another version is not in force.
    write_record(registry, Record("plate", "2.0.0", Registry(registry).records()["plate"].path))
    run("tune", "plate", images, "--max-false-reject", "0%", "--registry", registry)
    assert figures(capsys.readouterr().out)["threshold"] == ("0.5000", "0.6432")


def test_a_dry_run_changes_nothing(registry: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(registry.iterdir())
    assert run("tune", "plate", images, "--best-f1", "--dry-run", "--registry", registry) == 0
    assert run("tune", "plate", "--threshold", "0.6", "--dry-run", "--registry", registry) == 0
    printed = capsys.readouterr().out
    assert "0.3059" in printed and "Nothing is set" in printed and "would get the threshold 0.6000" in printed
    assert sorted(registry.iterdir()) == before


def test_a_package_is_measured_and_nothing_is_set(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = make_plate(tmp_path / "package")
    assert run("tune", package, images, "--best-f1", "--registry", tmp_path / "none") == 0
    printed = capsys.readouterr().out
    assert figures(printed)["threshold"] == ("0.5000", "0.3059") and "Nothing is set" in printed
    assert not (tmp_path / "none").exists()


def test_images_without_label_or_answer_are_named_and_left_out(
    registry: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(grey(0, 100, 100)).save(images / "normal" / "square.png")
    assert run("tune", "plate", images, "--best-f1", "--registry", registry) == 0
    printed = capsys.readouterr()
    assert "4 good and 3 anomalous" in printed.out
    assert "square.png got no answer" in printed.err and "100 x 100" in printed.err


def test_an_image_without_label_is_left_out(
    registry: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "images.manifest"
    lines = [
        {"source-ref": str(path), "label": 1, "label-metadata": {"class-name": label, **OF_CLASSES}}
        for folder, label in (("normal", "normal"), ("anomaly", "anomaly"))
        for path in sorted((images / folder).iterdir())
    ]
    save(tmp_path / "nobody-knows.png", 250)
    lines.append({"source-ref": str(tmp_path / "nobody-knows.png")})
    manifest.write_text("\n".join(map(json.dumps, lines)))
    assert run("tune", "plate", manifest, "--best-f1", "--registry", registry) == 0
    printed = capsys.readouterr()
    assert "4 good and 3 anomalous" in printed.out and "since they have no label: 1 images" in printed.err


OF_CLASSES = {"type": "groundtruth/image-classification", "human-annotated": "yes"}


def test_a_target_out_of_reach_is_approached_and_said(
    registry: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(images / "normal" / "255.png", 255)
    assert run("tune", "plate", images, "--max-false-reject", "0%", "--registry", registry) == 0
    printed = capsys.readouterr()
    assert "No threshold gives at most 0% false rejects" in printed.err
    assert figures(printed.out)["false rejects"] == ("2 of 5 (40.0%)", "1 of 5 (20.0%)")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--threshold", "1", "calls everything normal"),
        ("--threshold", "0", "calls everything anomalous"),
        ("--threshold", "0.5", "use at least 10 good and 10 anomalous"),
        ("--max-false-reject", "0.5%", "With 4 good images at most 0.5% false rejects means none at all; it takes 200"),
        ("--max-miss", "1%", "With 3 anomalous images at most 1% misses means none at all; it takes 100"),
    ],
)
def test_what_is_doubtful_is_warned_of(
    registry: Path, images: Path, option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tune", "plate", images, option, value, "--registry", registry) == 0
    assert words in capsys.readouterr().err


def test_a_package_whose_mask_decides_alone_is_refused(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def by_mask(manifest: Manifest) -> Manifest:
        return changed(manifest, decision=changed(manifest.decision, combination="mask"))  # type: ignore[arg-type]

    package = make_package(tmp_path / "package", change=by_mask)
    assert run("tune", package, images, "--best-f1", "--registry", tmp_path / "none") == 1
    assert "no threshold of the score changes it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["normal", "anomaly"])
def test_images_of_one_kind_are_refused(
    registry: Path, images: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (images / kind).iterdir():
        path.unlink()
    assert run("tune", "plate", images, "--best-f1", "--registry", registry) == 1
    assert "a threshold that parts them needs both" in capsys.readouterr().err
    assert threshold_in(registry) is None


# --- by hand ---


def test_a_threshold_is_set_by_hand_and_taken_back(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "plate", "--threshold", "0.62", "--registry", registry) == 0
    assert "Threshold 0.6200 is set for plate 1.0.0" in capsys.readouterr().out
    assert threshold_in(registry) == 0.62
    assert run("tune", "plate", "--reset", "--registry", registry) == 0
    assert threshold_in(registry) is None
    changes, _ = history(registry, "plate")
    assert [(each.action, each.old, each.new, each.target) for each in changes] == [
        ("set", 0.5, 0.62, "by hand"),
        ("reset", 0.62, 0.5, ""),
    ]


def test_taking_back_what_was_not_set_changes_nothing(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "plate", "--reset", "--registry", registry) == 0
    assert "No threshold is set" in capsys.readouterr().out
    assert history(registry, "plate") == ([], 0)


def test_a_file_that_cannot_be_used_can_be_taken_back_and_replaced(registry: Path) -> None:
    (registry / "plate.threshold").write_text("{")
    assert run("tune", "plate", "--threshold", "0.62", "--registry", registry) == 0
    assert threshold_in(registry) == 0.62
    (registry / "plate.threshold").write_text("{")
    assert run("tune", "plate", "--reset", "--registry", registry) == 0
    assert not (registry / "plate.threshold").exists()


def test_what_was_set_for_a_component_that_has_left_can_be_taken_back(registry: Path) -> None:
    run("tune", "plate", "--threshold", "0.62", "--registry", registry)
    remove_record(registry, "plate")
    assert run("tune", "plate", "--reset", "--registry", registry) == 0
    changes, _ = history(registry, "plate")
    assert (changes[-1].action, changes[-1].version, changes[-1].new) == ("reset", "", None)


def test_what_was_set_for_a_package_that_cannot_be_read_any_more_can_be_taken_back(registry: Path) -> None:
    run("tune", "plate", "--threshold", "0.62", "--registry", registry)
    (Path(Registry(registry).records()["plate"].path) / "manifest.json").write_text("{")
    assert run("tune", "plate", "--reset", "--registry", registry) == 0
    assert threshold_in(registry) is None


def test_the_history_is_a_table_of_all_changes(
    registry: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("tune", "plate", images, "--max-miss", "0%", "--registry", registry)
    run("tune", "plate", "--reset", "--registry", registry)
    capsys.readouterr()
    assert run("tune", "plate", "--history", "--registry", registry) == 0
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["when", "who", "version", "change"]
    for word in ("1.0.0", "set", "0.5000", "0.3059", "at most 0% misses", "1 of 4", "0 of 3", str(images)):
        assert word in first
    assert "reset" in second


def test_the_history_says_how_much_of_it_cannot_be_read(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("tune", "plate", "--threshold", "0.62", "--registry", registry)
    with (registry / "plate.threshold-log").open("a") as log:
        log.write('{"when": ')
    capsys.readouterr()
    assert run("tune", "plate", "--history", "--registry", registry) == 0
    assert "1 of the lines in" in capsys.readouterr().out


def test_a_component_without_changes_has_no_history(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "plate", "--history", "--registry", registry) == 0
    assert "was never changed" in capsys.readouterr().out


def test_setting_by_hand_needs_no_workbench(registry: Path) -> None:
    """On a device there is no onnx, and a command that is typed there should not wait for what it does not need."""
    code = (
        "import sys; from agent import cli; cli.main(sys.argv[1:]); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "sys.exit(', '.join(sorted(loaded & {'onnx', 'onnxruntime', 'grpc', 'tqdm'})))"
    )
    arguments = ["tune", "plate", "--threshold", "0.62", "--registry", str(registry)]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (ended.stderr.strip(), threshold_in(registry)) == ("", 0.62)


# --- refusals ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "--threshold", "0.5"), "'nobody' is neither registered"),
        (("nobody", "--reset"), "No threshold is set for nobody"),
        (("a/b", "--reset"), "no name of a model component"),
        (("../plate", "--history"), "no name of a model component"),
        (("plate", "--best-f1"), "found on labelled images"),
        (("plate", "--threshold", "0.5", "--agent"), "found on labelled images"),
        (("plate", "x", "--reset"), "--reset looks at no images"),
        (("plate", "x", "--history"), "--history looks at no images"),
        (("plate", "no-such-folder", "--best-f1"), "no-such-folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    registry: Path, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("tune", *arguments, "--registry", registry)
    printed = capsys.readouterr()
    assert words in printed.out + printed.err
    assert code == (0 if "No threshold" in words else 1)
    assert threshold_in(registry) is None


@pytest.mark.parametrize("option", [("--threshold", "0.5"), ("images", "--best-f1", "--agent", "socket")])
def test_a_package_has_no_threshold_of_its_own_on_a_device(
    tmp_path: Path, option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    package = make_plate(tmp_path / "package")
    assert run("tune", package, *option, "--registry", tmp_path) == 1
    assert "is a package; a device keeps thresholds by component" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--best-f1", "--reset"),
        ("--max-false-reject", "0.5"),  # of what? 0.5% or half
        ("--max-false-reject", "101%"),
        ("--max-miss", "-1%"),
        ("--max-miss", "%"),
        ("--max-miss", "nan%"),
        ("--max-miss", "1/0%"),
        ("--cost-ratio", "20"),
        ("--cost-ratio", "0:1"),
        ("--cost-ratio", "1:-1"),
        ("--threshold", "1.01"),
        ("--threshold", "nan"),
        ("--threshold", "-0.1"),
        ("--threshold", "0.62345"),
        ("--threshold", "half"),
    ],
)
def test_a_wrong_argument_exits_2(registry: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("tune", "plate", "--registry", registry, *arguments)
    assert ended.value.code == 2
    assert threshold_in(registry) is None


def test_a_registry_that_cannot_be_written_is_a_sentence(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (registry / "plate.threshold-log").mkdir()
    assert run("tune", "plate", "--threshold", "0.62", "--registry", registry) == 1
    assert f"The registry {registry} cannot be changed" in capsys.readouterr().err
    assert threshold_in(registry) is None


# --- what other commands make of it ---


def test_the_list_of_models_tells_of_it(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("tune", "plate", "--threshold", "0.62", "--registry", registry)
    capsys.readouterr()
    assert run("models", "list", "--registry", registry) == 0
    assert "threshold 0.6200 set on this device, the package says 0.5000" in capsys.readouterr().out


def test_removing_a_model_takes_it_along_and_keeps_its_log(registry: Path) -> None:
    run("tune", "plate", "--threshold", "0.62", "--registry", registry)
    assert run("models", "remove", "plate", "--registry", registry) == 0
    assert [path.name for path in registry.iterdir()] == ["plate.threshold-log"]
    changes, _ = history(registry, "plate")
    assert [(each.action, each.version, each.old, each.new) for each in changes] == [
        ("set", "1.0.0", 0.5, 0.62),
        ("removed", "1.0.0", 0.62, None),
    ]


def test_removing_a_model_whose_threshold_was_never_changed_leaves_nothing(registry: Path) -> None:
    assert run("models", "remove", "plate", "--registry", registry) == 0
    assert list(registry.iterdir()) == []


def test_a_threshold_that_somebody_else_wrote_is_measured_against_too(
    registry: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_threshold(registry, DeviceThreshold("plate", "1.0.0", 0.1, "2026-01-01T12:00:00Z", "anna"))
    assert run("tune", "plate", images, "--best-f1", "--dry-run", "--registry", registry) == 0
    assert figures(capsys.readouterr().out)["false rejects"] == ("2 of 4 (50.0%)", "1 of 4 (25.0%)")
