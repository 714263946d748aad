"""The check of GPUs: what it writes, and what it does where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.workbench.doctor.trials import Outcome
from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.checks import accuracy, contract
from benchmarks.gpu_check.result import Result, passed, table
from benchmarks.serving.model import make_packages
from tests.support.checkout import ROOT


def test_a_device_that_cannot_be_used_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    monkeypatch.setattr(gpu_check, "tried", lambda device: Outcome(reason="there is no GPU; add one"))
    monkeypatch.setattr("sys.argv", ["gpu_check", "--record", str(page)])
    assert gpu_check.main() == 3
    assert "nothing was checked. there is no GPU; add one." in capsys.readouterr().err
    assert page.read_text() == "# Page\n"


def test_what_fails_is_seen_in_the_table() -> None:
    results = [
        passed("memory", False, "900 MiB | kept"),
        passed("contract", True, "14 passed"),
        Result("p50", "measured", "1"),
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(results).splitlines()[2:]]
    assert rows == [
        ["memory", "FAILED", "900 MiB / kept"],
        ["contract", "passed", "14 passed"],
        ["p50", "measured", "1"],
    ]


def test_entries_come_newest_first_below_what_the_page_says_of_itself() -> None:
    first = gpu_check.recorded(f"# Page\n\nHow.\n\n{gpu_check.NOT_RUN}\n", "## one\n\ntable\n")
    assert first == "# Page\n\nHow.\n\n## one\n\ntable\n"
    assert gpu_check.recorded(first, "## two\n") == "# Page\n\nHow.\n\n## two\n\n## one\n\ntable\n"


def test_the_page_of_this_project_can_take_a_first_entry() -> None:
    page = gpu_check.recorded((ROOT / "docs/gpu-checks.md").read_text(), "## new\n")
    assert gpu_check.NOT_RUN not in page
    assert page.count("## new") == 1


def test_the_cpu_passes_its_own_contract_and_answers_as_itself(tmp_path: Path) -> None:
    assert contract("cpu").outcome == "passed"
    package = make_packages(tmp_path / "packages")["segmentation"]
    result = accuracy(package.folder, "cpu", "made")
    assert result == Result(
        "as the CPU: made", "passed", "7 images, scores and areas differ by at most 0.00000, 0 verdicts"
    )
