"""What all our `evaluate` modules take: the records of `plain_records`, as columns that Arrow stores."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

INPUTS = """
predictions: per sample {"size": [h, w], "segments": [{"category_id", "score", "masks": [counts per frame]}]}, as
    omg_transformers.metrics.plain_records.record_of_segments gives it. Counts are those of a COCO RLE, a string; "" is
    an absent segment.
references: the same with "is_crowd" for the score, and "void": [counts per frame], as record_of_annotation gives it.
"""


def metric_info(description: str) -> Any:
    """The `evaluate.MetricInfo` of one module."""
    number, flag, text = datasets.Value("int64"), datasets.Value("bool"), datasets.Value("string")
    result = {"category_id": number, "score": datasets.Value("float64"), "masks": [text]}
    truth = {"category_id": number, "is_crowd": flag, "masks": [text]}
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=INPUTS,
        features=datasets.Features(
            {
                "predictions": {"size": [number], "segments": [result]},
                "references": {"size": [number], "segments": [truth], "void": [text]},
            }
        ),
    )
