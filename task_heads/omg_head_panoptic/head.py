"""Panoptic segmentation: every pixel belongs to one thing, to one kind of stuff, or to nothing."""

from __future__ import annotations

from typing import ClassVar

from omg_transformers.metrics.panoptic import PanopticQuality
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.partition import Partition


class PanopticHead(Partition):
    """Queries contest each pixel with class score x mask probability; covered queries are dropped (MaskFormer)."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("panoptic", reads=("classes", "instances", "scene"))

    def metric(self, *, num_classes: int) -> PanopticQuality:
        """Panoptic quality over all classes, over things and over stuff."""
        return PanopticQuality(num_classes)
