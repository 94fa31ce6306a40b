"""Mean IoU of classes as an `evaluate` module."""

from typing import Any

import evaluate

from omg_transformers.metrics.evaluate_modules.features import metric_info
from omg_transformers.metrics.plain_records import score_records
from omg_transformers.metrics.semantic import MeanIoU


class MeanIoUModule(evaluate.Metric):
    """Mean IoU and accuracies of pixels and classes."""

    def _info(self) -> Any:
        return metric_info("Mean IoU of classes; `compute(num_classes=K)`.")

    def _compute(self, predictions: Any, references: Any, *, num_classes: int) -> dict[str, float]:
        is_thing = [False] * num_classes
        metric = MeanIoU(num_classes)
        return score_records(metric, predictions, references, is_thing=is_thing, may_overlap=False).compute()
