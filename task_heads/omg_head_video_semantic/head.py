"""Semantic segmentation of videos: one class per pixel of every frame."""

from __future__ import annotations

from typing import ClassVar

from omg_transformers.metrics.video_semantic import VideoSemanticQuality
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.class_maps import ClassMaps


class VideoSemanticHead(ClassMaps):
    """As the picture head in every frame, with the classes of the whole clip."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("video_semantic", is_video=True, reads=("classes", "scene"))

    def metric(self, *, num_classes: int) -> VideoSemanticQuality:
        """Mean IoU over all frames, and how consistent the classes stay (mVC)."""
        return VideoSemanticQuality(num_classes)
