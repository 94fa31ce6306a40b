"""DAVIS's J&F: how well objects are followed through a video, given at its start or found without help."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from omg_transformers.metrics.contours import BOUND_TH, Outline, bound_pixels, outline, outline_f
from omg_transformers.metrics.maps import decode
from omg_transformers.metrics.semantic import require_maps

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Segment, Segments

    # Of one frame: predicted masks, true masks, void.
    Scene: TypeAlias = tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]], NDArray[np.bool_] | None]

TASKS = ("semi-supervised", "unsupervised")
VOID = 255
MAX_PROPOSALS = 20
FIGURES = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


class Shape(NamedTuple):
    """A mask (H, W), its area and its outline."""

    mask: NDArray[np.bool_]
    area: int
    outline: Outline


@dataclass(frozen=True, slots=True)
class ObjectQuality:
    """One object of a sequence: J and F of each judged frame (T,).

    number: of the object, from 1. proposal: of the prediction that answers it, from 1; 0: none was left for it.
    """

    sequence: str
    number: int
    proposal: int
    j: NDArray[np.float64]
    f: NDArray[np.float64]

    def figures(self) -> dict[str, float]:
        """`j_mean`, `j_recall`, `j_decay`, `f_mean`, `f_recall`, `f_decay`."""
        return dict(zip(FIGURES, (*statistics(self.j), *statistics(self.f)), strict=True))


def statistics(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, recall (share above 0.5) and decay (first quarter minus last quarter) of the frames' values (T,).

    The quarters are right for any length. The reference computes their bounds in 8 bits: from 258 values on its decay
    is wrong or NaN.
    """
    bounds = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    first, last = values[bounds[0] : bounds[1] + 1], values[bounds[3] : bounds[4] + 1]
    return float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())


class VideoObjectQuality:
    """DAVIS 2017's J, F and J&F: mean, recall and decay of each object, averaged over all objects.

    task: "semi-supervised": prediction i answers object i, the first and the last frame are not judged, and void is
    background. "unsupervised": up to `max_proposals` predictions are assigned to the objects for the best total, all
    frames are judged, and void does not count. Frames that are void as a whole do not count as frames: nobody annotated
    them, and in DAVIS's folders they have no file.
    Objects are those of the first frame, numbered from 1 to the largest id in it; an id left out is an empty object.
    with_late_objects: also those that appear later; the reference does not judge them, and stops when one is
    predicted. bound_th: see `bound_pixels`. Keeps two numbers per object and frame. `skipped` lists unused files.
    """

    def __init__(
        self,
        task: str = "semi-supervised",
        *,
        with_late_objects: bool = False,
        max_proposals: int = MAX_PROPOSALS,
        bound_th: float = BOUND_TH,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task is {task!r}: expected one of {', '.join(map(repr, TASKS))}")
        bound_pixels((1, 1), bound_th)
        self.task = task
        self.with_late_objects = with_late_objects
        self.max_proposals = max_proposals
        self.bound_th = bound_th
        self.objects: list[ObjectQuality] = []
        self.skipped: list[str] = []
        self._names: set[str] = set()

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one clip. Its objects are the annotation's segments that are no crowd, in order; crowds are void.

        prediction: may overlap; missing ones count as empty. key: the sequence's name, for errors and `per_object`.
        """
        name = "" if key is None else str(key)
        size, num_frames = tuple(annotation.size), annotation.num_frames
        lengths = (
            {len(rles) for rles in prediction.rles or ()} if prediction.id_map is None else {len(prediction.id_map)}
        )
        if tuple(prediction.size) != size or lengths - {num_frames}:
            found = ", ".join(map(str, sorted(lengths)))
            raise ValueError(
                f"{name or 'prediction'}: {found or 'no'} frames of {tuple(prediction.size)} are predicted, "
                f"the annotation has {num_frames} of {size}: they must be equal"
            )
        objects = [segment for segment in annotation.segments if self._is_judged(segment)]
        annotated = annotated_frames(annotation)
        self._require_sequence(name, len(objects), len(annotated), "annotated frames")
        self._require_ids(name, len(prediction), len(objects), f"{len(prediction)} predictions")
        judged = [annotated[place] for place in self._judged(len(annotated))]
        self._judge(name, _scenes_of_segments(prediction, annotation, objects, judged))

    def update_maps(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        *,
        name: str = "",
        frame_names: Sequence[str] | None = None,
    ) -> None:
        """Count one sequence: id maps (T, H, W), 0 = background; 255 = void in `truth`.

        name: of the sequence, for errors and `per_object`. frame_names: of the T frames, for errors.
        """
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        require_maps(prediction, truth, name)
        if truth.ndim != 3:
            raise ValueError(f"{name or 'truth'} has shape {truth.shape}: expected id maps (T, H, W)")
        labelled = truth if self.with_late_objects else truth[:1]
        num_objects = int(labelled.max(initial=0, where=labelled != VOID))
        self._require_sequence(name, num_objects, len(truth))
        frames = self._judged(len(truth))
        judged = prediction[frames.start : frames.stop]
        num_predicted = int(judged.max(initial=0))
        if num_predicted > self._limit(num_objects) or judged.min(initial=0) < 0:
            bad = (judged > self._limit(num_objects)) | (judged < 0)
            first = frames[int(bad.any((1, 2)).argmax())]
            frame = frame_names[first] if frame_names else f"frame {first}"
            ids = ", ".join(map(str, np.unique(judged[bad])[:5].tolist()))
            self._require_ids(name, self._limit(num_objects) + 1, num_objects, f"the ids {ids} (first in {frame})")
        self._judge(
            name,
            (
                (
                    [prediction[frame] == number for number in range(1, num_predicted + 1)],
                    [truth[frame] == number for number in range(1, num_objects + 1)],
                    truth[frame] == VOID,
                )
                for frame in frames
            ),
        )

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        own, theirs = (
            (metric.task, metric.with_late_objects, metric.max_proposals, metric.bound_th) for metric in (self, other)
        )
        if own != theirs:
            raise ValueError(f"other is set to {theirs}, this metric to {own}: their figures cannot be averaged")
        for name in other._names:
            self._require_new(name)
        self._names |= other._names
        self.objects += other.objects
        self.skipped += other.skipped

    def compute(self) -> dict[str, float]:
        """`j_and_f`, then mean, recall and decay of J and F: in [0, 1], decays in [-1, 1]; NaN without objects."""
        rows = [quality.figures() for quality in self.objects]
        figures = {key: float(np.mean([row[key] for row in rows])) if rows else float("nan") for key in FIGURES}
        return {"j_and_f": (figures["j_mean"] + figures["f_mean"]) / 2, **figures}

    def per_object(self) -> list[dict[str, Any]]:
        """One row per object: `sequence`, `object`, `proposal` (0: none was left for it), `frames`, its six figures."""
        return [
            {
                "sequence": quality.sequence,
                "object": quality.number,
                "proposal": quality.proposal,
                "frames": len(quality.j),
                **quality.figures(),
            }
            for quality in self.objects
        ]

    def _is_judged(self, segment: Segment) -> bool:
        shown = segment.masks if self.with_late_objects else segment.masks[:1]
        return any(shown) and not segment.is_crowd

    def _judged(self, num_frames: int) -> range:
        return range(num_frames) if self.task == "unsupervised" else range(1, num_frames - 1)

    def _limit(self, num_objects: int) -> int:
        return self.max_proposals if self.task == "unsupervised" else num_objects

    def _require_new(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"sequence {name} has been counted already: each sequence counts once")

    def require_length(self, name: str, num_frames: int, noun: str = "frames") -> None:
        """Refuse a sequence that is too short to be judged. noun: what the message calls the frames."""
        if not len(self._judged(num_frames)):
            raise ValueError(
                f"{name or 'this sequence'} has {num_frames} {noun}: semi-supervised scoring leaves out the first and "
                "the last, so it needs at least 3; score it as unsupervised or leave it out"
            )

    def _require_sequence(self, name: str, num_objects: int, num_frames: int, noun: str = "frames") -> None:
        self._require_new(name)
        self.require_length(name, num_frames, noun)
        if not num_objects:
            where = "any frame" if self.with_late_objects else "its first frame (see with_late_objects)"
            raise ValueError(f"{name or 'this sequence'} has no object in {where}: leave it out")

    def _require_ids(self, name: str, num_predicted: int, num_objects: int, found: str) -> None:
        limit = self._limit(num_objects)
        if num_predicted > limit:
            reason = (
                f"at most {limit} proposals are allowed (max_proposals)"
                if self.task == "unsupervised"
                else f"the truth has the ids 1 to {limit}"
                + ("" if self.with_late_objects else " in its first frame: remove them or set with_late_objects")
            )
            raise ValueError(f"{name or 'this sequence'}: the prediction holds {found}, but {reason}")

    def _judge(self, name: str, scenes: Iterable[Scene]) -> None:
        """Judge the frames of one sequence."""
        is_free = self.task == "unsupervised"
        num_predicted = num_objects = 0
        frames = []
        for predicted, true, void in scenes:
            num_predicted, num_objects = len(predicted), len(true)
            padded = predicted + [np.zeros_like(true[0])] * (num_objects - num_predicted)
            reach = bound_pixels((true[0].shape[0], true[0].shape[1]), self.bound_th)
            ignored = void if is_free and void is not None and void.any() else None
            guesses = [_shape(mask, ignored, reach) for mask in padded]
            truths = [_shape(mask, ignored, reach) for mask in true]
            pairs = product(guesses, truths) if is_free else zip(guesses, truths, strict=True)
            frames.append([_scores(guess, truth, reach) for guess, truth in pairs])
        scores = np.ascontiguousarray(np.moveaxis(np.array(frames, dtype=np.float64), 0, -1))
        chosen = np.arange(num_objects)
        if is_free:
            scores = scores.reshape(-1, num_objects, *scores.shape[1:])
            # Rows and sums as in the reference: equal totals are then assigned alike.
            means = scores.mean(3)
            rows, columns = linear_sum_assignment(-(means[..., 0] + means[..., 1]) / 2)
            chosen = rows[np.argsort(columns)]
            scores = scores[chosen, np.arange(num_objects)]
        self._names |= {name} - {""}
        self.objects += [
            ObjectQuality(name, number, int(guess) + 1 if guess < num_predicted else 0, *scores[number - 1])
            for number, guess in enumerate(chosen, 1)
        ]


def annotated_frames(annotation: Annotation) -> list[int]:
    """Numbers of the frames that are not void as a whole."""
    return [frame for frame, void in enumerate(annotation.void) if void is None or not decode(void).all()]


def _scenes_of_segments(
    prediction: Segments, annotation: Annotation, objects: Sequence[Segment], frames: Sequence[int]
) -> Iterator[Scene]:
    size = annotation.size
    ids = None if prediction.id_map is None else prediction.id_map.detach().cpu().numpy()
    void_masks = [annotation.void, *(segment.masks for segment in annotation.segments if segment.is_crowd)]
    for frame in frames:
        predicted = (
            [ids[frame] == number for number in prediction.ids.tolist()]
            if ids is not None
            else [_decoded(rles[frame], size) for rles in prediction.rles or ()]
        )
        void = np.zeros(size, dtype=bool)
        for masks in void_masks:
            void |= _decoded(masks[frame], size)
        yield predicted, [_decoded(segment.masks[frame], size) for segment in objects], void


def _decoded(rle: RLE | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.zeros(size, dtype=bool) if rle is None else decode(rle)


def _shape(mask: NDArray[np.bool_], void: NDArray[np.bool_] | None, reach: float) -> Shape:
    own = mask if void is None else mask & ~void
    return Shape(own, int(np.count_nonzero(own)), outline(own, reach))


def _scores(prediction: Shape, truth: Shape, reach: float) -> tuple[float, float]:
    """J and F of one mask."""
    shared = int(np.count_nonzero(prediction.mask & truth.mask)) if prediction.area and truth.area else 0
    union = prediction.area + truth.area - shared
    return (shared / union if union else 1.0), outline_f(prediction.outline, truth.outline, reach)
