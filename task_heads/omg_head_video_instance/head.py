"""Instance segmentation of videos: one scored track per object; tracks may overlap."""

from __future__ import annotations

from typing import ClassVar

from omg_transformers.metrics.video_average_precision import VideoMaskAveragePrecision
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.scored_masks import ScoredMasks


class VideoInstanceHead(ScoredMasks):
    """As the picture head, with one score per track: the same query in all frames."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("video_instance", is_video=True, reads=("classes", "instances", "tracks"))

    def metric(self, *, num_classes: int) -> VideoMaskAveragePrecision:
        """YouTube-VIS average precision: a track counts as a whole."""
        return VideoMaskAveragePrecision(num_classes)
