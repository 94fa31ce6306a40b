"""What a user runs: the pipeline."""

from omg_transformers.inference.pipeline import OMGSegPipeline
from omg_transformers.registration import register

__all__ = ["OMGSegPipeline"]

register()
