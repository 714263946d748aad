"""docs/metrics.md asks for metrics that there are, in words that Prometheus reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.metrics.catalogue import METRICS
from tests.support.checkout import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text()
RULES = re.findall(r"```yaml\n(groups:\n.*?)```", PAGE, re.DOTALL)
QUERIES = re.findall(r"`((?:sum|histogram_quantile)[^`]*)`", PAGE)


def test_every_metric_that_the_page_names_is_one_of_the_catalogue() -> None:
    series = {metric.name for metric in METRICS}
    series |= {
        metric.name + suffix
        for metric in METRICS
        if metric.kind == "histogram"
        for suffix in ("_bucket", "_sum", "_count")
    }
    named = set(re.findall(r"edge_agent_\w+", " ".join((*RULES, *QUERIES))))
    assert len(named) > 8
    assert named <= series


def test_prometheus_takes_the_pages_alerts_and_queries(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    (alerts,) = RULES
    (tmp_path / "alerts.yml").write_text(alerts)
    recorded = "".join(f"  - record: query{number}\n    expr: '{query}'\n" for number, query in enumerate(QUERIES))
    (tmp_path / "queries.yml").write_text(f"groups:\n- name: queries\n  rules:\n{recorded}")
    checked = subprocess.run(
        [promtool, "check", "rules", tmp_path / "alerts.yml", tmp_path / "queries.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
