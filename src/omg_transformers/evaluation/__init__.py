"""What a model is worth: its answers to held-out samples, counted by the metric of a task.

Nothing is imported before it is asked for: figures of files need no model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omg_transformers.evaluation.comparison import compare_reports
    from omg_transformers.evaluation.loop import Evaluation, EvaluationSettings, SampleFigure, evaluate
    from omg_transformers.evaluation.report import Report, format_report, write_report
    from omg_transformers.evaluation.run import evaluate_model
    from omg_transformers.evaluation.segmenters import PipelineSegmenter, Segmenter, open_segmenter

_HOMES = {
    "Evaluation": "loop",
    "EvaluationSettings": "loop",
    "PipelineSegmenter": "segmenters",
    "Report": "report",
    "SampleFigure": "loop",
    "Segmenter": "segmenters",
    "compare_reports": "comparison",
    "evaluate": "loop",
    "evaluate_model": "run",
    "format_report": "report",
    "open_segmenter": "segmenters",
    "write_report": "report",
}

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "PipelineSegmenter",
    "Report",
    "SampleFigure",
    "Segmenter",
    "compare_reports",
    "evaluate",
    "evaluate_model",
    "format_report",
    "open_segmenter",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
