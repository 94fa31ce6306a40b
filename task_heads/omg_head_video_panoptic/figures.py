"""The two usual figures of video panoptic segmentation, from one pass over the videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from omg_transformers.metrics.segmentation_tracking import SegmentationTrackingQuality
from omg_transformers.metrics.video_panoptic import VideoPanopticQuality

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments


class TubeFigures:
    """Video panoptic quality (VPQ) and segmentation and tracking quality (STQ) of the same videos."""

    def __init__(self, num_classes: int) -> None:
        self.panoptic = VideoPanopticQuality(num_classes)
        self.tracking = SegmentationTrackingQuality(num_classes)

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one video. key: its name."""
        self.panoptic.update(prediction, annotation, key=key)
        self.tracking.update(prediction, annotation, key=key)

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self.panoptic.merge(other.panoptic)
        self.tracking.merge(other.tracking)

    def compute(self) -> dict[str, float]:
        """`vpq` first, its parts by window, then `stq`, `aq` and `sq`."""
        return {**self.panoptic.compute(), **self.tracking.compute()}

    def per_class(self) -> dict[str, NDArray[Any]]:
        """The columns of VPQ, then `iou` and `aq`, each (K,)."""
        return {**self.panoptic.per_class(), **self.tracking.per_class()}
