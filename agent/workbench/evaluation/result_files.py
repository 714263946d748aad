"""The files of an evaluation: the original service's two, and the answers as a table.

The formats of `EvaluationResult` and `EvaluationManifest` are those of Lookout for Vision (developer guide, "Evaluating
your model with the test dataset"); the keys of detected masks are those of AWS's Defect Detection Application.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.packages.palette import BACKGROUND
from agent.workbench.dataset.ground_truth import ANOMALY, CLASSIFICATION, NORMAL, SEGMENTATION
from agent.workbench.evaluation.evaluation import Answer, Evaluation
from agent.workbench.inspection.inspector import InspectedModel

JOB = "evaluation-job/edge-agent"
"""What made the detected labels."""


def evaluation_result(evaluation: Evaluation, ended: datetime) -> dict[str, Any]:
    """The content of `EvaluationResult-NAME.json`; `ended` is in UTC."""
    metrics = evaluation.metrics
    return {
        "Version": 1,
        "EvaluationDetails": {
            "ModelArn": evaluation.model.arn,
            "EvaluationEndTimestamp": _timestamp(ended),
            # An agent does not tell how many images its model was made of.
            "NumberOfTrainingImages": evaluation.model.training_images or 0,
            "NumberOfTestingImages": len(evaluation.answers),
        },
        "AggregatedEvaluationResults": {
            "Metrics": {
                "ROCAUC": metrics.roc_auc,
                "AveragePrecision": metrics.average_precision,
                "Precision": metrics.counts.precision,
                "Recall": metrics.counts.recall,
                "F1Score": metrics.counts.f1,
                "PixelAnomalyClassMetrics": [
                    {
                        "Precision": one.counts.precision,
                        "Recall": one.counts.recall,
                        "F1Score": one.counts.f1,
                        "AIoU": one.average_iou,
                        "ClassName": one.name,
                    }
                    for one in evaluation.classes
                ],
            }
        },
    }


def evaluation_manifest(evaluation: Evaluation, folder: Path, ended: datetime) -> Iterator[dict[str, Any]]:
    """The lines of `EvaluationManifest-NAME.json`: each image's truth as it stood, and what was detected.

    References to masks are relative to `folder`, where the manifest will lie. `ended` is in UTC.
    """
    for answer in evaluation.answers:
        line = dict(answer.image.entry)
        line["anomaly-label-detected"] = int(answer.detection.is_anomalous)
        line["anomaly-label-detected-metadata"] = {
            "class-name": ANOMALY if answer.detection.is_anomalous else NORMAL,
            "confidence": answer.detection.confidence,
            "type": CLASSIFICATION,
            "human-annotated": "no",
            "creation-date": _timestamp(ended),
            "job-name": JOB,
            "model-arn": evaluation.model.arn,
            "project-name": _project(evaluation.model),
            "model-version": evaluation.model.version,
        }
        if answer.mask is not None:
            line["anomaly-mask-ref-detected"] = os.path.relpath(answer.mask, folder)
            line["anomaly-mask-ref-detected-metadata"] = {
                "internal-color-map": {
                    str(index): {
                        "class-name": region.name,
                        "hex-color": region.color,
                        "total-percentage-area": region.area,
                    }
                    for index, region in enumerate(answer.detection.regions)
                },
                "type": SEGMENTATION,
                "human-annotated": "no",
                "creation-date": _timestamp(ended),
                "job-name": JOB,
            }
        yield line


def write_result_files(evaluation: Evaluation, folder: Path, name: str, ended: datetime) -> list[Path]:
    """Writes both JSON files and `Answers-NAME.csv` into `folder`; files of an earlier evaluation are replaced."""
    result, manifest = folder / f"EvaluationResult-{name}.json", folder / f"EvaluationManifest-{name}.json"
    result.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation_result(evaluation, ended)), indent=2) + b"\n")
    lines = evaluation_manifest(evaluation, folder, ended)
    manifest.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    answers = folder / f"Answers-{name}.csv"
    with answers.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "truth", "verdict", "score", "threshold", "confidence", "anomalous area"])
        table.writerows(_row(answer) for answer in evaluation.answers)
    return [result, manifest, answers]


def _row(answer: Answer) -> list[object]:
    detection = answer.detection
    area = sum(region.area for region in detection.regions if region.name != BACKGROUND)
    return [
        str(answer.image.path),
        ANOMALY if answer.image.is_anomalous else NORMAL,
        ANOMALY if detection.is_anomalous else NORMAL,
        detection.score,
        detection.threshold,
        detection.confidence,
        round(area, 6) if answer.mask is not None else "",
    ]


def _project(model: InspectedModel) -> str:
    """The project that an ARN of the original service names (`...:model/PROJECT/VERSION`), else the model's name."""
    kind, *rest = model.arn.rpartition(":")[2].split("/")
    return rest[0] if kind == "model" and rest else model.name


def _timestamp(moment: datetime) -> str:
    """As the original service writes it: ISO 8601 without a zone, UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")
