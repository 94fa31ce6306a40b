"""Instance segmentation: one scored mask per object; masks may overlap."""

from __future__ import annotations

from typing import ClassVar

from omg_transformers.metrics.average_precision import MaskAveragePrecision
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.scored_masks import ScoredMasks


class InstanceHead(ScoredMasks):
    """The best (query, class) pairs, each scored by class probability x mean mask probability inside its mask."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("instance", reads=("classes", "instances"))

    def metric(self, *, num_classes: int) -> MaskAveragePrecision:
        """COCO's mask average precision."""
        return MaskAveragePrecision(num_classes)
