"""What a model is worth: its answers to held-out samples, counted by the metric of a task."""

from omg_transformers.evaluation.loop import EvaluationSettings, evaluate

__all__ = ["EvaluationSettings", "evaluate"]
