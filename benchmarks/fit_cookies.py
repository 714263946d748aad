"""How well `edge-agent fit` tells cracked biscuits from good ones, over several seeds: the tables of docs/fit.md.

    python benchmarks/fit_cookies.py DATA/cookies [--seeds 8] [--fixed-position]

DATA/cookies holds training-images/normal-*.jpg (for fitting) and test-images/test-{normal,anomaly}-*.jpg. A model is
fitted for each seed, with the settings that `edge-agent fit` uses; the test images choose nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from tabulate import tabulate
from tqdm import tqdm

from agent.workbench.dataset.good_images import PixelsOf, good_images
from agent.workbench.fit.method import FitSettings, FittedModel, fit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder 'cookies'")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--fixed-position", action="store_true", help="for comparison; these photographs are hand-held")
    arguments = parser.parse_args()

    good = PixelsOf(good_images(str(arguments.data / "training-images" / "normal-*.jpg")))
    tests = good_images(str(arguments.data / "test-images"))
    pixels = [image.pixels for image in tests]
    is_anomaly = np.array(["anomaly" in image.path.name for image in tests])

    rows, all_scores = [], []
    for seed in tqdm(range(arguments.seeds), desc="seeds", file=sys.stderr):
        settings = FitSettings.for_fixed_position() if arguments.fixed_position else FitSettings.for_moving_part()
        started = time.perf_counter()
        fitted = fit(good, replace(settings, seed=seed))
        fit_seconds = time.perf_counter() - started
        scores, milliseconds = answers(fitted, pixels)
        all_scores.append(scores)
        called = scores >= 0.5
        found, false_alarms = int((called & is_anomaly).sum()), int((called & ~is_anomaly).sum())
        f1 = 2 * found / (called.sum() + is_anomaly.sum())
        rows.append([seed, auroc(scores, is_anomaly), f1, found, false_alarms, fit_seconds, milliseconds])

    columns = np.array(rows)
    rows.append(["median", *np.median(columns[:, 1:], axis=0)])
    rows.append(["worst", *columns[:, 1:4].min(axis=0), *columns[:, 4:].max(axis=0)])
    headers = ["seed", "AUROC", "F1", f"found of {is_anomaly.sum()}", f"false alarms of {(~is_anomaly).sum()}"]
    formats = ("", ".3f", ".3f", "g", "g", ".1f", ".1f")
    print(tabulate(rows, [*headers, "fit s", "ms per image"], tablefmt="github", floatfmt=formats))
    print()
    by_name = sorted(range(len(tests)), key=lambda index: natural(tests[index].path.name))
    spread = np.array(all_scores)
    table = [
        [tests[i].path.name, spread[0, i], spread[:, i].min(), np.median(spread[:, i]), spread[:, i].max()]
        for i in by_name
    ]
    print(tabulate(table, ["image", "seed 0", "lowest", "median", "highest"], tablefmt="github", floatfmt=".3f"))
    return 0


def answers(fitted: FittedModel, images: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Scores of `images`, and the median time of one in milliseconds, on all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = fitted.model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": images[0][None]})
    scores, times = [], []
    for image in images:
        started = time.perf_counter()
        scores.append(session.run(["score"], {"image": image[None]})[0][0])
        times.append(time.perf_counter() - started)
    return np.array(scores), float(np.median(times) * 1000)


def auroc(scores: np.ndarray, is_anomaly: np.ndarray) -> float:
    """Share of pairs in which the anomaly scores higher; ties count half."""
    anomalies, normals = scores[is_anomaly][:, None], scores[~is_anomaly][None]
    return float((anomalies > normals).mean() + (anomalies == normals).mean() / 2)


def natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    sys.exit(main())
