"""Panoptic quality as an `evaluate` module."""

from typing import Any

import evaluate

from omg_transformers.metrics.evaluate_modules.features import metric_info
from omg_transformers.metrics.panoptic import PanopticQuality
from omg_transformers.metrics.plain_records import score_records


class PanopticQualityModule(evaluate.Metric):
    """PQ, SQ and RQ of all classes, things and stuff."""

    def _info(self) -> Any:
        return metric_info("Panoptic quality; `compute(is_thing=[...])` takes one flag per class.")

    def _compute(self, predictions: Any, references: Any, *, is_thing: list[bool]) -> dict[str, float]:
        metric = PanopticQuality(len(is_thing), is_thing)
        return score_records(metric, predictions, references, is_thing=is_thing, may_overlap=False).compute()
