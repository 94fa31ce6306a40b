"""Higher order tracking accuracy (HOTA), counted by TrackEval, an optional package."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Segments

# TrackEval's names of the figures, each a mean over the localisation thresholds 0.05 .. 0.95.
FIGURES = {
    "hota": "HOTA",
    "detection_accuracy": "DetA",
    "association_accuracy": "AssA",
    "detection_recall": "DetRe",
    "detection_precision": "DetPr",
    "association_recall": "AssRe",
    "association_precision": "AssPr",
    "localization_accuracy": "LocA",
    "hota_at_0": "HOTA(0)",
}
NO_CLASS = -1


def require_trackeval() -> Any:
    """TrackEval's HOTA counter; ImportError that names the extra where the package is missing."""
    try:
        return importlib.import_module("trackeval.metrics.hota").HOTA()
    except ImportError as error:
        raise ImportError(
            f"HOTA needs the package trackeval ({error}): `pip install omg-transformers[hota]`"
        ) from error


@dataclass(slots=True)
class TrackedVideo:
    """One video as TrackEval reads it: per frame the numbers of true and predicted objects and their IoUs.

    true_ids, predicted_ids: per frame (G,) and (D,), any integers, unique within a frame. ious: per frame (G, D).
    """

    true_ids: list[NDArray[np.int64]] = field(default_factory=list)
    predicted_ids: list[NDArray[np.int64]] = field(default_factory=list)
    ious: list[NDArray[np.float64]] = field(default_factory=list)

    def add_frame(
        self, true_ids: NDArray[np.int64], predicted_ids: NDArray[np.int64], ious: NDArray[np.float64]
    ) -> None:
        """Append one frame."""
        self.true_ids.append(true_ids)
        self.predicted_ids.append(predicted_ids)
        self.ious.append(ious)

    def data(self) -> dict[str, Any]:
        """TrackEval's dictionary; tracks are numbered from 0."""
        truth, num_truths = _numbered(self.true_ids)
        predicted, num_predicted = _numbered(self.predicted_ids)
        return {
            "num_timesteps": len(self.ious),
            "gt_ids": truth,
            "tracker_ids": predicted,
            "similarity_scores": self.ious,
            "num_gt_ids": num_truths,
            "num_tracker_ids": num_predicted,
            "num_gt_dets": sum(map(len, truth)),
            "num_tracker_dets": sum(map(len, predicted)),
        }


class HOTA:
    """HOTA of followed objects, with mask IoU. The class plays no part in the match, but there is a figure per class.

    A crowd counts as one object, as TrackEval has it without a data set's own rules; void excuses nothing. The state
    is one row of TrackEval's counts, 2 KB, per video and class that occurs in it.
    """

    def __init__(self) -> None:
        self._counter = require_trackeval()
        self.videos: dict[Hashable, dict[str, Any]] = {}
        self.videos_per_class: dict[int, dict[Hashable, dict[str, Any]]] = {}
        self.num_classes = 0

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one video. Stuff and segments without a class are not judged. key: its name, unique."""
        key = self._new_key(key)
        _check_agreement(prediction, annotation)
        truths: list[Row] = [
            (number, segment.category_id, segment.masks)
            for number, segment in enumerate(annotation.segments)
            if segment.category_id >= 0 and annotation.is_thing[segment.category_id]
        ]
        results: list[Row] = [
            (number, label, rles)
            for number, label, rles in zip(
                prediction.ids.tolist(), prediction.labels.tolist(), _rles_of(prediction), strict=True
            )
            if label >= 0 and annotation.is_thing[label]
        ]
        self.num_classes = max(self.num_classes, annotation.num_classes)
        for label in sorted({row[1] for row in (*truths, *results)}):
            of_class = [[row for row in rows if row[1] == label] for rows in (truths, results)]
            video = _video_of(of_class[0], of_class[1], annotation.num_frames)
            self.videos_per_class.setdefault(label, {})[key] = self._count(video)
        self.videos[key] = self._count(_video_of(truths, results, annotation.num_frames))

    def update_maps(self, prediction: NDArray[np.integer], truth: NDArray[np.integer], *, key: Hashable = None) -> None:
        """Count one video of id maps (T, H, W): 0 = no object, the same id in several frames = one track."""
        if truth.ndim != 3 or truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}: expected equal (T, H, W)")
        key = self._new_key(key)
        video = TrackedVideo()
        for actual, predicted in zip(truth, prediction, strict=True):
            video.add_frame(*_frame_of_maps(actual, predicted))
        self.videos[key] = self._count(video)

    def merge(self, other: Self) -> None:
        """Add what another process has counted; a video in both is an error."""
        names = {}
        for key, counts in other.videos.items():
            # Videos without a name are numbered on each process from 0.
            names[key] = self._new_key(None if isinstance(key, _Nameless) else key)
            self.videos[names[key]] = counts
        for label, videos in other.videos_per_class.items():
            own = self.videos_per_class.setdefault(label, {})
            own.update({names[key]: counts for key, counts in videos.items()})
        self.num_classes = max(self.num_classes, other.num_classes)

    def compute(self) -> dict[str, float]:
        """`hota` first, all in [0, 1], over the detections of all videos; NaN before the first video."""
        return self._figures(self.videos)

    def per_video(self) -> list[dict[str, Any]]:
        """One row per video: `name`, its key (nameless ones are numbered), and its figures."""
        return [
            {"name": key.number if isinstance(key, _Nameless) else key, **_means(counts)}
            for key, counts in self.videos.items()
        ]

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """Each figure (K,), the class's objects by themselves; NaN for classes that occur nowhere."""
        rows = [self._figures(self.videos_per_class.get(label, {})) for label in range(self.num_classes)]
        return {name: np.array([row[name] for row in rows]) for name in FIGURES}

    def _count(self, video: TrackedVideo) -> dict[str, Any]:
        counts: dict[str, Any] = self._counter.eval_sequence(video.data())
        return counts

    def _figures(self, videos: dict[Hashable, dict[str, Any]]) -> dict[str, float]:
        if not videos:
            return dict.fromkeys(FIGURES, float("nan"))
        return _means(self._counter.combine_sequences(videos))

    def _new_key(self, key: Hashable) -> Hashable:
        if key is None:
            return _Nameless(len(self.videos))
        if key in self.videos:
            raise ValueError(f"key {key!r} was scored before: every video counts once")
        return key


@dataclass(frozen=True, slots=True)
class _Nameless:
    number: int


Row = tuple[int, int, "Sequence[RLE | None]"]


def _video_of(truths: Sequence[Row], results: Sequence[Row], num_frames: int) -> TrackedVideo:
    """The tracks given as (id, class, one RLE or None per frame)."""
    video = TrackedVideo()
    for frame in range(num_frames):
        shown = [[(row[0], row[2][frame]) for row in rows if row[2][frame] is not None] for rows in (truths, results)]
        masks = [[_with_bytes(rle) for _, rle in rows] for rows in shown]
        ious = np.zeros((len(shown[0]), len(shown[1])))
        if ious.size:
            ious = np.asarray(coco_mask.iou(masks[0], masks[1], [0] * len(masks[1])))
        true_ids, predicted_ids = (np.array([number for number, _ in rows], dtype=np.int64) for rows in shown)
        video.add_frame(true_ids, predicted_ids, ious)
    return video


def _with_bytes(rle: Any) -> dict[str, Any]:
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def _rles_of(prediction: Segments) -> Sequence[Sequence[RLE | None]]:
    if prediction.rles is not None:
        return prediction.rles
    from omg_transformers.ops.masks import encode_masks

    return [encode_masks(prediction.mask(index)) for index in range(len(prediction))]


def _check_agreement(prediction: Segments, annotation: Annotation) -> None:
    if tuple(prediction.size) != tuple(annotation.size):
        raise ValueError(f"prediction has size {prediction.size}, the annotation {annotation.size}: make them equal")
    if len(prediction) and prediction.num_frames != annotation.num_frames:
        raise ValueError(f"prediction has {prediction.num_frames} frames, the annotation {annotation.num_frames}")
    labels = prediction.labels.tolist()
    if labels and max(labels) >= annotation.num_classes:
        raise ValueError(f"prediction has label {max(labels)}, the annotation {annotation.num_classes} classes")


def _frame_of_maps(
    truth: NDArray[np.integer], prediction: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Ids that occur, without 0, and their IoUs (G, D)."""
    true_ids, rows = np.unique(truth, return_inverse=True)
    predicted_ids, columns = np.unique(prediction, return_inverse=True)
    shape = (len(true_ids), len(predicted_ids))
    shared = np.bincount(rows.ravel() * shape[1] + columns.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(1)[:, None] + shared.sum(0)[None] - shared
    kept = np.ix_(true_ids != 0, predicted_ids != 0)
    ious = (shared / union)[kept]
    return true_ids[true_ids != 0].astype(np.int64), predicted_ids[predicted_ids != 0].astype(np.int64), ious


def _numbered(frames: Sequence[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], int]:
    """The same tracks with numbers from 0, and how many there are."""
    ids = np.unique(np.concatenate([np.zeros(0, np.int64), *frames]))
    return [np.searchsorted(ids, frame) for frame in frames], len(ids)


def _means(counts: dict[str, Any]) -> dict[str, float]:
    return {name: float(np.mean(counts[source])) for name, source in FIGURES.items()}
