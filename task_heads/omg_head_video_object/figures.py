"""J&F over clips of which some may show no object at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_transformers.metrics.video_object import VideoObjectQuality, annotated_frames

if TYPE_CHECKING:
    from collections.abc import Hashable

    from omg_transformers.structures import Annotation, Segments

FIGURES = ("j_and_f", "j_mean", "j_recall", "f_mean", "f_recall")


class FollowedObjects(VideoObjectQuality):
    """DAVIS's J&F; clips in which nothing can be judged are left out and named in `skipped`.

    These are clips without an object in their first frame, and those of whose frames fewer than 3 are annotated.
    """

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one clip; prediction i answers object i. key: of the clip."""
        name = "a clip" if key is None else key
        num_annotated = len(annotated_frames(annotation))
        if not any(segment.masks and segment.masks[0] and not segment.is_crowd for segment in annotation.segments):
            self.skipped.append(f"{name}: no object in its first frame")
        elif num_annotated < min(3, annotation.num_frames):
            found = f"{num_annotated} annotated frame{'s' * (num_annotated != 1)}"
            self.skipped.append(f"{name}: {found}, of which the first and the last are not judged")
        else:
            super().update(prediction, annotation, key=key)

    def compute(self) -> dict[str, float]:
        """`j_and_f`, then mean and recall of J and F; NaN without objects. The decays may be negative: see `table`."""
        figures = super().compute()
        return {name: figures[name] for name in FIGURES}
