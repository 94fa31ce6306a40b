"""Semantic segmentation: one class per pixel, things and stuff alike."""

from __future__ import annotations

from typing import ClassVar

from omg_transformers.metrics.semantic import MeanIoU
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.class_maps import ClassMaps


class SemanticHead(ClassMaps):
    """Each pixel takes the class with the largest sum over queries of class probability x mask probability."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("semantic", reads=("classes", "scene"))

    def metric(self, *, num_classes: int) -> MeanIoU:
        """Mean IoU over classes and pixel accuracy."""
        return MeanIoU(num_classes)
