"""What a model is worth: its answers to held-out samples, counted by the metric of a task."""

from omg_transformers.evaluation.loop import Evaluation, EvaluationSettings, SampleFigure, evaluate
from omg_transformers.evaluation.report import Report, format_report, write_report
from omg_transformers.evaluation.segmenters import PipelineSegmenter, Segmenter, open_segmenter

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "PipelineSegmenter",
    "Report",
    "SampleFigure",
    "Segmenter",
    "evaluate",
    "format_report",
    "open_segmenter",
    "write_report",
]
