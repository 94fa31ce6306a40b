"""COCO's average precision as an `evaluate` module."""

from typing import Any

import evaluate

from omg_transformers.metrics.average_precision import MaskAveragePrecision
from omg_transformers.metrics.evaluate_modules.features import metric_info
from omg_transformers.metrics.plain_records import score_records


class MaskAveragePrecisionModule(evaluate.Metric):
    """COCO's twelve figures of masks, boxes or boundaries."""

    def _info(self) -> Any:
        return metric_info(
            "COCO's twelve figures; `compute(num_classes=K, kind='segm')`, kind is 'segm', 'bbox' or 'boundary'. "
            "All classes are things; an object's area is that of its mask."
        )

    def _compute(self, predictions: Any, references: Any, *, num_classes: int, kind: str = "segm") -> dict[str, float]:
        is_thing = [True] * num_classes
        metric = MaskAveragePrecision(num_classes, kind=kind)
        return score_records(metric, predictions, references, is_thing=is_thing, may_overlap=True).compute()
