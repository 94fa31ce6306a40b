"""Video panoptic quality: tubes matched inside windows of consecutive frames, all windows in one pass."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from omg_transformers.metrics.panoptic import (
    MAX_ID,
    VOID,
    Overlaps,
    PanopticCounts,
    SegmentMetric,
    classes_of,
    count_overlaps,
    match_overlaps,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Value = TypeVar("Value")
WINDOWS = (1, 2, 4, 6)
# 64 MiB of int64: longer videos are summed up piece by piece.
MAX_CELLS = 2**23


class TubeOverlaps:
    """Pixels shared by the true and the predicted tubes of one video, frame by frame; only pairs that occur."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {VOID: 0}
        self.columns: dict[int, int] = {VOID: 0}
        self.num_frames = 0
        self.is_weighted = False
        self._entries: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    @classmethod
    def of_frames(
        cls,
        predictions: Iterable[NDArray[np.integer]],
        truths: Iterable[NDArray[np.integer]],
        weights: Iterable[NDArray[np.floating]] | None = None,
    ) -> TubeOverlaps:
        """Count pairs of id maps (H, W), one pair per frame; refuses videos of different length."""
        tubes = cls()
        streams = (predictions, truths) if weights is None else (predictions, truths, weights)
        try:
            for frame in zip(*streams, strict=True):
                tubes.add(*frame)
        except ValueError as error:
            if "zip()" in str(error):
                raise ValueError(
                    f"the videos (prediction, truth, weights) differ in length after {tubes.num_frames} frames: "
                    "give every frame once, also where nothing was found"
                ) from None
            raise
        if not tubes.num_frames:
            raise ValueError("the video has no frames: leave it out")
        return tubes

    def add(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Count the next frame: id maps of one shape."""
        true_ids, predicted_ids, totals = count_overlaps(prediction, truth, weights)
        rows = [self.rows.setdefault(identity, len(self.rows)) for identity in true_ids.tolist()]
        columns = [self.columns.setdefault(identity, len(self.columns)) for identity in predicted_ids.tolist()]
        frames = np.full(len(rows), self.num_frames)
        self._entries.append((frames, np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64), totals))
        self.num_frames += 1
        self.is_weighted |= weights is not None

    def total(self) -> NDArray[np.float64]:
        """Summed over all frames: (G, P)."""
        _, rows, columns, totals = self._entry_columns()
        table = np.zeros((len(self.rows), len(self.columns)))
        np.add.at(table, (rows, columns), totals)
        return table

    def dense(self, least_frames: int) -> Iterator[NDArray[np.int64]]:
        """Tables (n, G, P) of consecutive frames; every run of `least_frames` frames lies in just one of them."""
        frames, rows, columns, totals = self._entry_columns()
        cells = len(self.rows) * len(self.columns)
        num_starts = self.num_frames - least_frames + 1
        step = max(1, MAX_CELLS // cells - least_frames + 1)
        for first in range(0, num_starts, step):
            last = min(first + step, num_starts) + least_frames - 1
            part = slice(*np.searchsorted(frames, [first, last]).tolist())
            table = np.zeros((last - first, len(self.rows), len(self.columns)), dtype=np.int64)
            table[frames[part] - first, rows[part], columns[part]] = totals[part]
            yield table

    def _entry_columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        frames, rows, columns, totals = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        return frames, rows, columns, totals


def join_ids(
    classes: NDArray[np.integer], instances: NDArray[np.integer], *, num_classes: int, void: int = 255
) -> NDArray[np.int64]:
    """One id map of a class map and a map of instance numbers, of one shape: 1 + class + num_classes * instance.

    0 where the class is `void`. Refuses other classes outside [0, num_classes) and negative instance numbers.
    """
    if classes.shape != instances.shape:
        raise ValueError(f"the class map has shape {classes.shape}, the instances {instances.shape}: make them equal")
    is_void = classes == void
    labels = np.where(is_void, 0, classes).astype(np.int64)
    numbers = np.where(is_void, 0, instances).astype(np.int64)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise ValueError(
            f"the class map holds {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}, or {void} for void"
        )
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= MAX_ID // num_classes:
        raise ValueError(
            f"instances holds {numbers.min()} to {numbers.max()}: expected 0 to {MAX_ID // num_classes - 1}"
        )
    return np.where(is_void, VOID, 1 + labels + num_classes * numbers)


def joined_classes(ids: Iterable[int], num_classes: int) -> dict[int, int]:
    """The class of each id that `join_ids` made."""
    return {identity: (identity - 1) % num_classes for identity in ids if identity != VOID}


@dataclass(frozen=True, slots=True)
class LabelledTubes:
    """The tubes of one video, true ones in rows and predicted ones in columns, and what they are.

    truth_classes: (G,), prediction_classes: (P,), -1 for void and for tubes without a class. crowd_rows: in the order
    in which the truth lists its crowds.
    """

    overlaps: TubeOverlaps
    truth_classes: NDArray[np.int64]
    prediction_classes: NDArray[np.int64]
    crowd_rows: list[int]

    @property
    def is_crowd(self) -> NDArray[np.bool_]:
        """(G,)."""
        return np.isin(np.arange(len(self.truth_classes)), self.crowd_rows)


class TubeMetric(SegmentMetric):
    """How videos come into a metric; what it counts of a video's overlaps is the subclass's."""

    zero_is_crowd = False

    def update_maps(
        self,
        prediction: Iterable[NDArray[np.integer]],
        truth: Iterable[NDArray[np.integer]],
        prediction_classes: Mapping[int, int],
        truth_classes: Mapping[int, int],
        *,
        crowd_ids: Sequence[int] = (),
    ) -> None:
        """Count one video: an id map (H, W) per frame, 0 = void, one id for all frames of a tube, and their classes.

        crowd_ids: ids of the truth, in the order in which its segments are listed.
        """
        unknown = [crowd for crowd in crowd_ids if crowd not in truth_classes]
        if unknown:
            raise ValueError(
                f"crowd_ids holds {unknown[0]}, truth_classes has no such id: give the class of every crowd"
            )
        tubes = TubeOverlaps.of_frames(prediction, truth)
        self.update_tubes(tubes, prediction_classes, truth_classes, crowd_ids=crowd_ids)

    def update_class_maps(
        self,
        prediction: tuple[Sequence[NDArray[np.integer]], Sequence[NDArray[np.integer]]],
        truth: tuple[Sequence[NDArray[np.integer]], Sequence[NDArray[np.integer]]],
        *,
        void: int = 255,
        crowds: Sequence[tuple[int, int]] = (),
        weights: Iterable[NDArray[np.floating]] | None = None,
    ) -> None:
        """Count one video: per side the class maps and the instance maps, (T, H, W) each or one (H, W) per frame.

        A tube is what has one class and one instance number. crowds: (class, instance) of the truth's crowds. weights:
        one (H, W) per frame, how much each pixel counts (STQ only).
        """
        for name, (classes, instances) in (("prediction", prediction), ("truth", truth)):
            if len(classes) != len(instances):
                raise ValueError(f"{name} has {len(classes)} class maps and {len(instances)} instance maps")
        predictions, truths = (
            (
                join_ids(label, number, num_classes=self.num_classes, void=void)
                for label, number in zip(*maps, strict=True)
            )
            for maps in (prediction, truth)
        )
        tubes = TubeOverlaps.of_frames(predictions, truths, weights)
        crowd_ids = [1 + label + self.num_classes * number for label, number in crowds]
        if self.zero_is_crowd:
            crowd_ids += [1 + label for label, is_thing in enumerate(self._things()) if is_thing]
        predicted, true = (joined_classes(ids, self.num_classes) for ids in (tubes.columns, tubes.rows))
        self.update_tubes(tubes, predicted, true, crowd_ids=crowd_ids)

    def update_tubes(
        self,
        tubes: TubeOverlaps,
        prediction_classes: Mapping[int, int],
        truth_classes: Mapping[int, int],
        *,
        crowd_ids: Sequence[int] = (),
    ) -> None:
        """Count one video whose frames `tubes` has counted; see `update_maps`. Several metrics can share `tubes`."""
        labelled = LabelledTubes(
            tubes,
            classes_of(list(tubes.rows), truth_classes, self.num_classes, "truth"),
            classes_of(list(tubes.columns), prediction_classes, self.num_classes, "prediction"),
            [tubes.rows[crowd] for crowd in crowd_ids if crowd in tubes.rows],
        )
        self._count_video(labelled)

    def _things(self) -> tuple[bool, ...]:
        return self.is_thing if self.is_thing is not None else (True,) * self.num_classes

    @abstractmethod
    def _count_video(self, tubes: LabelledTubes) -> None:
        """Count the tubes of one video."""


class VideoPanopticQuality(TubeMetric):
    """Video panoptic quality (Kim et al. 2020), as the VIPSeg evaluation counts it.

    Every run of k consecutive frames of a video is one scene; tubes are matched in it as the segments of a picture.
    """

    name = "vpq"

    def __init__(
        self, num_classes: int, is_thing: Sequence[bool] | None = None, *, windows: Sequence[int] = WINDOWS
    ) -> None:
        super().__init__(num_classes, is_thing)
        if not windows or min(windows) < 1 or len(set(windows)) != len(windows):
            raise ValueError(f"windows is {tuple(windows)}: expected different numbers of frames, each at least 1")
        self.windows = tuple(windows)
        self.counts = {window: PanopticCounts.zeros(num_classes) for window in self.windows}
        self.num_windows = dict.fromkeys(self.windows, 0)

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.windows != self.windows:
            raise ValueError(f"cannot merge a metric of windows {other.windows} into one of {self.windows}")
        self._agree(other)
        for window, counts in other.counts.items():
            self.counts[window].add(counts)
            self.num_windows[window] += other.num_windows[window]

    def compute(self) -> dict[str, float]:
        """`vpq`, `vpq_things`, `vpq_stuff`: means over the windows; then for each window k `vpq_k`, `vpq_k_things`,
        `sq_k`, `rq_k` .. NaN for a window that no video is long enough for, and for means that contain it.
        """
        figures = self._averages()
        means = {
            self.name + group: float(np.mean([values[f"pq{group}"] for values in figures.values()]))
            for group in ("", "_things", "_stuff")
        }
        return means | self._by_window(figures)

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,): `vpq`, the mean over the windows; then for each window k `vpq_k`, `sq_k`, `rq_k`, `iou_k`,
        `tp_k`, `fp_k`, `fn_k` as in `PanopticQuality.per_class`. NaN where the class does not occur in every window.
        """
        tables = {window: counts.per_class() for window, counts in self.counts.items()}
        return {self.name: np.mean([table["pq"] for table in tables.values()], axis=0)} | self._by_window(tables)

    def _averages(self) -> dict[int, dict[str, float]]:
        return {window: counts.average(self.is_thing) for window, counts in self.counts.items()}

    def _by_window(self, tables: Mapping[int, Mapping[str, Value]]) -> dict[str, Value]:
        """One flat table: `pq_things` of window 2 becomes `vpq_2_things`."""
        return {
            "_".join([key.replace("pq", self.name), str(window), *group]): value
            for window, table in tables.items()
            for (key, *group), value in ((name.split("_"), value) for name, value in table.items())
        }

    def _count_video(self, tubes: LabelledTubes) -> None:
        if tubes.overlaps.is_weighted:
            raise ValueError("weights are given, but panoptic quality counts whole pixels: leave them out")
        for window, counts in self.counts.items():
            for frames in tubes.overlaps.dense(window):
                self.num_windows[window] += len(frames) - window + 1
                counts.add(self._count_windows(frames, window, tubes))

    def _count_windows(self, frames: NDArray[np.int64], window: int, tubes: LabelledTubes) -> PanopticCounts:
        areas = sum_windows(frames, window)
        excuses = _excuses(frames, window, tubes, self.num_classes)
        classes = tubes.truth_classes, tubes.prediction_classes
        return match_overlaps(Overlaps(areas, *classes, tubes.is_crowd, excuses, areas.sum(2)), self.num_classes)


class OMGSegVideoPanopticQuality(VideoPanopticQuality):
    """What the code of OMG-Seg computes and calls VPQ: for comparing with its figures only.

    It does not punish identity switches, flicker and missed frames: a frame adds to the union of a pair only where both
    tubes are in that frame, and a true tube may match several predictions. Tubes in frames where the other side has
    nothing at all are not counted. It knows no crowds (they count as segments). Equal to `VideoPanopticQuality` for
    windows of one frame without crowds.
    """

    name = "omgseg_vpq"

    def compute(self) -> dict[str, float]:
        """For each window k `omgseg_vpq_k`, `sq_k`, `rq_k`, and these of `_things` and `_stuff`. The original has no
        mean over windows.
        """
        return self._by_window(self._averages())

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,), for each window k: `omgseg_vpq_k`, `sq_k`, `rq_k`, `iou_k`, `tp_k`, `fp_k`, `fn_k`."""
        return self._by_window({window: counts.per_class() for window, counts in self.counts.items()})

    def _count_windows(self, frames: NDArray[np.int64], window: int, tubes: LabelledTubes) -> PanopticCounts:
        row_classes, column_classes = tubes.truth_classes, tubes.prediction_classes
        true_areas, predicted_areas = frames.sum(2)[:, :, None], frames.sum(1)[:, None]
        unions = true_areas + predicted_areas - frames - frames[:, :1]
        unions[(true_areas == 0) | (predicted_areas == 0)] = 0
        shared, unions = sum_windows(frames, window), sum_windows(unions, window)
        has_met = (unions > 0) & (row_classes >= 0)[:, None] & (column_classes >= 0)
        ious = np.divide(shared, unions, out=np.zeros(shared.shape), where=has_met)
        scene, row, column = np.nonzero((ious > 0.5) & (row_classes[:, None] == column_classes))
        is_missed, is_wrong = np.any(has_met, axis=2), np.any(has_met, axis=1)
        is_wrong &= 2 * shared[:, 0] <= shared.sum(1)
        matches = scene, row, column, ious[scene, row, column]
        return PanopticCounts.of_matches(matches, is_missed, is_wrong, row_classes, column_classes, self.num_classes)


def sum_windows(frames: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Sums over every run of `window` frames: (T, ..) to (T - window + 1, ..)."""
    if window == 1:
        return frames
    sums = np.cumsum(frames, axis=0)
    return np.concatenate([sums[window - 1 : window], sums[window:] - sums[:-window]])


def _excuses(frames: NDArray[np.int64], window: int, tubes: LabelledTubes, num_classes: int) -> NDArray[np.int64]:
    """Per window and class the crowd that excuses predictions: the last one to come in, as the reference has it."""
    crowd_rows = np.array(tubes.crowd_rows, dtype=np.int64)
    crowd_classes = tubes.truth_classes[crowd_rows]
    if len(set(crowd_classes.tolist())) == len(crowd_rows):
        excuses = np.zeros((1, num_classes), dtype=np.int64)
        excuses[0, crowd_classes] = crowd_rows
        return excuses
    is_there = np.any(frames[:, crowd_rows], axis=2)
    excuses = np.zeros((len(frames) - window + 1, num_classes), dtype=np.int64)
    for start in range(len(excuses)):
        seen = is_there[start : start + window]
        arrival = np.where(seen.any(0), seen.argmax(0), -1)
        for place in np.argsort(arrival, kind="stable"):
            if arrival[place] >= 0:
                excuses[start, crowd_classes[place]] = crowd_rows[place]
    return excuses
