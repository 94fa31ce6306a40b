"""Data sets as streams of samples: readers, procedural and composed scenes, transforms, batches, mixing."""

from __future__ import annotations

from omg_transformers.data.clips import ClipSource, FramesSource, PseudoClips
from omg_transformers.data.collate import Batch, collate, pad_annotation
from omg_transformers.data.composer import ComposedScenes, CutOut
from omg_transformers.data.hub import StreamedSource, as_iterable_dataset, sample_from_row
from omg_transformers.data.label_mapping import MappedSource, join_sources, map_annotation
from omg_transformers.data.procedural import ProceduralScenes, procedural_label_space
from omg_transformers.data.readers import Detection, detect_layouts, open_layout
from omg_transformers.data.readers.coco_panoptic import read_coco_panoptic
from omg_transformers.data.sources import SampleError, SampleSource, iterate
from omg_transformers.data.stream import MixedStream, MixPart
from omg_transformers.data.transforms import EvalTransform, TrainTransform, Transform

__all__ = [
    "Batch",
    "ClipSource",
    "ComposedScenes",
    "CutOut",
    "Detection",
    "EvalTransform",
    "FramesSource",
    "MappedSource",
    "MixPart",
    "MixedStream",
    "ProceduralScenes",
    "PseudoClips",
    "SampleError",
    "SampleSource",
    "StreamedSource",
    "TrainTransform",
    "Transform",
    "as_iterable_dataset",
    "collate",
    "detect_layouts",
    "iterate",
    "join_sources",
    "map_annotation",
    "open_layout",
    "pad_annotation",
    "procedural_label_space",
    "read_coco_panoptic",
    "sample_from_row",
]
