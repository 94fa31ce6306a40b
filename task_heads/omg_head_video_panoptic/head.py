"""Panoptic segmentation of videos: every pixel belongs to one tube, to one kind of stuff, or to nothing."""

from __future__ import annotations

from typing import ClassVar

from omg_head_video_panoptic.figures import TubeFigures
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.partition import Partition


class VideoPanopticHead(Partition):
    """As the picture head, with one contest for the whole clip: a query is the same segment in all frames."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec(
        "video_panoptic", is_video=True, reads=("classes", "instances", "scene", "tracks")
    )

    def metric(self, *, num_classes: int) -> TubeFigures:
        """Video panoptic quality, and segmentation and tracking quality (STQ)."""
        return TubeFigures(num_classes)
