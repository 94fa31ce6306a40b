"""One model for all segmentation, on Hugging Face Transformers: pictures and videos, any names, points and boxes."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.registration import register_with_transformers

if TYPE_CHECKING:
    from omg_transformers.inference import OMGSegPipeline
    from omg_transformers.inference.bulk import segment_in_bulk
    from omg_transformers.inference.frames import open_frames
    from omg_transformers.inference.interactive import InteractiveSession
    from omg_transformers.inference.video_objects import ObjectSession
    from omg_transformers.inference.video_session import VideoSession
    from omg_transformers.labels import LabelSpace, Vocabulary, builtin_label_space, builtin_label_space_names
    from omg_transformers.metrics.evaluate_modules import evaluate_module
    from omg_transformers.model import OMGSegConfig, OMGSegModel, OMGSegOutput
    from omg_transformers.plugins import available_heads, load_head
    from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
    from omg_transformers.structures import Annotation, Sample, Segment, Segments

_HOMES = {
    "Annotation": "structures",
    "InteractiveSession": "inference.interactive",
    "LabelSpace": "labels",
    "OMGSegConfig": "model",
    "OMGSegImageProcessor": "processing",
    "OMGSegModel": "model",
    "OMGSegOutput": "model",
    "OMGSegPipeline": "inference",
    "OMGSegProcessor": "processing",
    "ObjectSession": "inference.video_objects",
    "Sample": "structures",
    "Segment": "structures",
    "Segments": "structures",
    "VideoSession": "inference.video_session",
    "Vocabulary": "labels",
    "available_heads": "plugins",
    "builtin_label_space": "labels",
    "builtin_label_space_names": "labels",
    "evaluate_module": "metrics.evaluate_modules",
    "load_head": "plugins",
    "open_frames": "inference.frames",
    "segment_in_bulk": "inference.bulk",
}

__all__ = [
    "Annotation",
    "InteractiveSession",
    "LabelSpace",
    "OMGSegConfig",
    "OMGSegImageProcessor",
    "OMGSegModel",
    "OMGSegOutput",
    "OMGSegPipeline",
    "OMGSegProcessor",
    "ObjectSession",
    "Sample",
    "Segment",
    "Segments",
    "VideoSession",
    "Vocabulary",
    "available_heads",
    "builtin_label_space",
    "builtin_label_space_names",
    "default_checkpoint",
    "evaluate_module",
    "load_head",
    "open_frames",
    "segment_in_bulk",
]

try:
    __version__ = version("omg-transformers")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def default_checkpoint() -> Path:
    """Folder of the small model inside this package; it works offline. Its README.md is its card."""
    return Path(__file__).parent / "default_model"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


register_with_transformers()
