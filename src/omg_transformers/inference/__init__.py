"""What a user runs: the pipeline."""

from omg_transformers.inference.loading import load_pipeline
from omg_transformers.inference.pipeline import OMGSegPipeline
from omg_transformers.registration import register

__all__ = ["OMGSegPipeline", "load_pipeline"]

register()
