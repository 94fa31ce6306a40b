"""J&F over clips of which some may show no object at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_transformers.metrics.video_object import VideoObjectQuality

if TYPE_CHECKING:
    from collections.abc import Hashable

    from omg_transformers.structures import Annotation, Segments

FIGURES = ("j_and_f", "j_mean", "j_recall", "f_mean", "f_recall")


class FollowedObjects(VideoObjectQuality):
    """DAVIS's J&F; clips without an object in their first frame are left out and named in `skipped`."""

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one clip; prediction i answers object i. key: of the clip."""
        if any(segment.masks and segment.masks[0] and not segment.is_crowd for segment in annotation.segments):
            super().update(prediction, annotation, key=key)
        else:
            self.skipped.append(f"{'a clip' if key is None else key}: no object in its first frame")

    def compute(self) -> dict[str, float]:
        """`j_and_f`, then mean and recall of J and F; NaN without objects. The decays may be negative: see `table`."""
        figures = super().compute()
        return {name: figures[name] for name in FIGURES}
