"""DAVIS's J&F as an `evaluate` module."""

from typing import Any

import evaluate

from omg_transformers.metrics.evaluate_modules.features import metric_info
from omg_transformers.metrics.plain_records import score_records
from omg_transformers.metrics.video_object import VideoObjectQuality


class VideoObjectQualityModule(evaluate.Metric):
    """J, F and J&F of objects followed through videos."""

    def _info(self) -> Any:
        return metric_info(
            "DAVIS's J&F; `compute(task='semi-supervised')`, where prediction i answers object i, or 'unsupervised'. "
            "Objects need no class: category_id is -1."
        )

    def _compute(self, predictions: Any, references: Any, *, task: str = "semi-supervised") -> dict[str, float]:
        return score_records(VideoObjectQuality(task), predictions, references, may_overlap=True).compute()
