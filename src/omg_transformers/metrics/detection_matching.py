"""Matching scored results to true objects as COCOeval does it, and what is left of it: a few bytes per result.

Results are matched picture by picture, so a metric forgets the masks at once; only the order of the scores needs the
whole set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    Record = Mapping[str, Any]

MAX_CLASSES = 2**16
LARGEST_AREA = 1e5**2
# What became of a result; 0: ignored. 40 such outcomes (4 areas, 10 IoUs) are digits to base 3 of one 64-bit number.
RIGHT, WRONG = 1, 2
MAX_CELLS = 40


@dataclass(frozen=True, slots=True)
class MatchingRules:
    """What separates the benchmarks: area ranges (all, small, medium, large) in pixels and results kept per class."""

    area_ranges: tuple[tuple[float, float], ...]
    max_results: tuple[int, ...] = (1, 10, 100)

    @property
    def iou_thresholds(self) -> NDArray[np.float64]:
        """(T,): 0.50, 0.55 ... 0.95, with the rounding errors of COCOeval."""
        return np.linspace(0.5, 0.95, 10)

    @property
    def recall_thresholds(self) -> NDArray[np.float64]:
        """(R,): 0.00, 0.01 ... 1.00."""
        return np.linspace(0.0, 1.0, 101)


def size_classes(medium: int, large: int) -> tuple[tuple[float, float], ...]:
    """Area ranges all, small, medium, large, split at squares with these sides."""
    return ((0, LARGEST_AREA), (0, medium**2), (medium**2, large**2), (large**2, LARGEST_AREA))


COCO_RULES = MatchingRules(size_classes(32, 96))
YOUTUBE_VIS_RULES = MatchingRules(size_classes(128, 256))


@dataclass(frozen=True, slots=True)
class TrueObjects:
    """The G true objects of one class in one picture or video.

    areas: (G,). is_ignored: (G,) neither found nor missed. is_crowd: (G,) may be found many times.
    is_void_id: (G,) those with annotation id 0, whose match COCOeval takes for none; None: there are none.
    """

    areas: NDArray[np.float64]
    is_ignored: NDArray[np.bool_]
    is_crowd: NDArray[np.bool_]
    is_void_id: NDArray[np.bool_] | None = None


def best_first(scores: NDArray[np.floating], rules: MatchingRules = COCO_RULES) -> NDArray[np.intp]:
    """Order of the results that count: falling score, equal ones as they came, no more than the rules keep."""
    return np.argsort(-np.asarray(scores), kind="stable")[: rules.max_results[-1]]


def match_results(
    ious: NDArray[np.float64], areas: NDArray[np.float64], truth: TrueObjects, rules: MatchingRules
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which results are right and which are wrong: two (D, A, T), both False where a result is ignored.

    ious: (D, G), results in the order of `best_first`. areas: (D,) of the results. Each result takes the free object
    of largest IoU, the last of equals, and an ignored one only where no other is left.
    """
    thresholds = np.minimum(rules.iou_thresholds, 1 - 1e-10)
    num_results, num_objects = ious.shape
    shape = (len(rules.area_ranges), len(thresholds))
    is_ignored = truth.is_ignored[None] | _outside(truth.areas, rules)
    is_found = np.zeros((num_results, *shape), dtype=bool)
    is_excused = np.zeros((num_results, *shape), dtype=bool)
    is_free = np.ones((*shape, num_objects), dtype=bool)
    preferred = np.where(is_ignored, 0, num_objects)[:, None]
    rank = np.empty(num_objects, dtype=np.int64)
    areas_index, thresholds_index = np.ix_(np.arange(shape[0]), np.arange(shape[1]))
    reachable = np.flatnonzero(ious.max(axis=1, initial=-1) >= thresholds[0])
    for result in reachable:
        row = ious[result]
        rank[np.argsort(row, kind="stable")] = np.arange(num_objects)
        candidates = is_free & (row >= thresholds[:, None])
        chosen = np.where(candidates, rank + preferred, -1).argmax(axis=-1)
        found = candidates.any(axis=-1)
        is_free[areas_index, thresholds_index, chosen] &= ~found | truth.is_crowd[chosen]
        is_excused[result] = found & is_ignored[areas_index, chosen]
        is_found[result] = found if truth.is_void_id is None else found & ~truth.is_void_id[chosen]
    is_excused |= ~is_found & _outside(areas, rules).T[:, :, None]
    return is_found & ~is_excused, ~is_found & ~is_excused


class MatchTable:
    """The outcome of every result: class, score, place among its picture's results, right or wrong per area and IoU.

    15 bytes per result, 19 where its score needs double precision. `add` once per picture; results of equal score keep
    the order of the pictures' keys, or without keys the order of adding.
    """

    def __init__(self, num_classes: int, rules: MatchingRules) -> None:
        if not 0 < num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes is {num_classes}: expected 1 to {MAX_CLASSES}")
        self.num_classes = num_classes
        self.rules = rules
        self.positives = np.zeros((num_classes, len(rules.area_ranges)), dtype=np.int64)
        self.rows: list[NDArray[np.void]] = []
        self.keys: dict[Hashable, int] = {}
        self.num_cells = len(rules.area_ranges) * len(rules.iou_thresholds)
        if self.num_cells > MAX_CELLS:
            raise ValueError(f"the rules have {self.num_cells} areas times thresholds: expected at most {MAX_CELLS}")
        fields: list[Any] = [("label", "u2"), ("place", "u1"), ("outcome", "u8")]
        self.exact = np.dtype([*fields, ("score", "f8")])
        self.compact = np.dtype([*fields, ("score", "f4")])

    def add(self, groups: Sequence[Group], key: Hashable = None) -> None:
        """Match and remember one picture. key: its name or number, unique; None: unknown."""
        self._register(key, len(self.rows))
        rows = np.concatenate([self._rows_of(group) for group in groups] or [np.zeros(0, self.exact)])
        # A network's scores are single precision already; those of a file often are not.
        is_exact = (rows["score"].astype(np.float32) == rows["score"]).all()
        self.rows.append(rows.astype(self.compact) if is_exact else rows)

    def merge(self, other: Self) -> None:
        """Add another table's pictures; a picture in both is an error."""
        if (other.num_classes, other.rules) != (self.num_classes, self.rules):
            raise ValueError(
                f"merged metrics count {self.num_classes} and {other.num_classes} classes: make them equal"
            )
        shift = len(self.rows)
        twice = self.keys.keys() & other.keys.keys()
        if twice:
            raise ValueError(f"{len(twice)} pictures are in both metrics, for instance {min(twice, key=str)!r}")
        self.keys.update({key: place + shift for key, place in other.keys.items()})
        self.rows += other.rows
        self.positives += other.positives

    def accumulate(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """precision (T, R, K, A, M) and recall (T, K, A, M) as in COCOeval.eval; -1 where there is no true object."""
        rules = self.rules
        thresholds, recalls = rules.iou_thresholds, rules.recall_thresholds
        shape = (self.num_classes, len(rules.area_ranges), len(rules.max_results))
        precision = -np.ones((len(thresholds), len(recalls), *shape))
        recall = -np.ones((len(thresholds), *shape))
        for label, rows in enumerate(self._by_class()):
            if not self.positives[label].any():
                continue
            outcome = self._unpacked(rows["outcome"])
            for kept_index, kept in enumerate(rules.max_results):
                is_kept = rows["place"] < kept
                for area, positives in enumerate(self.positives[label]):
                    if positives:
                        place = (label, area, kept_index)
                        precision[:, :, *place], recall[:, *place] = _curve(
                            outcome[area][:, is_kept], positives, recalls
                        )
        return precision, recall

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_bytes(self) -> int:
        """Size of the state."""
        return self.positives.nbytes + sum(rows.nbytes for rows in self.rows)

    def _register(self, key: Hashable, place: int) -> None:
        if key is None:
            return
        if key in self.keys:
            raise ValueError(f"key {key!r} was scored before: every picture counts once")
        self.keys[key] = place

    def _rows_of(self, group: Group) -> NDArray[np.void]:
        truth = group.truth
        counted = ~(truth.is_ignored[None] | _outside(truth.areas, self.rules))
        self.positives[group.label] += counted.sum(axis=1)
        right, wrong = match_results(group.ious, group.areas, truth, self.rules)
        rows = np.zeros(len(group.scores), self.exact)
        rows["label"], rows["score"], rows["place"] = group.label, group.scores, np.arange(len(rows))
        outcome = (RIGHT * right + WRONG * wrong).reshape(len(rows), self.num_cells).astype(np.uint64)
        rows["outcome"] = outcome @ self._powers
        return rows

    def _by_class(self) -> list[NDArray[np.void]]:
        """Per class the rows with falling score."""
        pictures = self.rows
        if len(self.keys) == len(pictures) and pictures:
            ordered = sorted(self.keys.items(), key=lambda item: _sort_key(item[0]))
            pictures = [pictures[place] for _, place in ordered]
        rows = np.concatenate([rows.astype(self.exact) for rows in pictures] or [np.zeros(0, self.exact)])
        rows = rows[np.argsort(-rows["score"], kind="stable")]
        rows = rows[np.argsort(rows["label"], kind="stable")]
        borders = np.searchsorted(rows["label"], np.arange(1, self.num_classes))
        return np.split(rows, borders)

    def _unpacked(self, outcome: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """0 ignored, 1 right, 2 wrong: (A, T, n) from the numbers (n,) to base 3."""
        areas, thresholds = len(self.rules.area_ranges), len(self.rules.iou_thresholds)
        return (outcome[None] // self._powers[:, None] % np.uint64(3)).reshape(areas, thresholds, len(outcome))

    @property
    def _powers(self) -> NDArray[np.uint64]:
        return np.uint64(3) ** np.arange(self.num_cells, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Group:
    """Results and true objects of one class in one picture; results in the order of `best_first`.

    ious: (D, G). scores, areas: (D,).
    """

    label: int
    ious: NDArray[np.float64]
    scores: NDArray[np.floating]
    areas: NDArray[np.float64]
    truth: TrueObjects


def group_by_class(
    truths: Sequence[Record],
    results: Sequence[Record],
    overlaps: Callable[[list[Record], list[Record], NDArray[np.bool_]], NDArray[np.float64]],
    area_of: Callable[[Record], float],
    *,
    with_ignored: bool = False,
) -> list[Group]:
    """The groups of one picture or video. Records hold "category_id" (index of the class), results a "score".

    overlaps: results, true objects and which of these are crowds (G,) -> (D, G). Truths may say "iscrowd", "id" and,
    honoured if with_ignored, "ignore".
    """
    by_class: dict[int, tuple[list[Record], list[Record]]] = {}
    for side, records in enumerate((truths, results)):
        for record in records:
            by_class.setdefault(record["category_id"], ([], []))[side].append(record)
    groups = []
    for label, (objects, found) in sorted(by_class.items()):
        found = [found[index] for index in best_first(np.array([record["score"] for record in found]))]
        is_crowd = np.array([bool(record.get("iscrowd", 0)) for record in objects], dtype=bool)
        is_ignored = np.array([with_ignored and bool(record.get("ignore", 0)) for record in objects], dtype=bool)
        groups.append(
            Group(
                label,
                overlaps(found, objects, is_crowd),
                np.array([record["score"] for record in found], dtype=np.float64),
                np.array([area_of(record) for record in found], dtype=np.float64),
                TrueObjects(
                    np.array([area_of(record) for record in objects], dtype=np.float64),
                    is_crowd | is_ignored,
                    is_crowd,
                    np.array([record.get("id") == 0 for record in objects], dtype=bool),
                ),
            )
        )
    return groups


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """The mean of what is not -1, NaN without any."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else float("nan")


def twelve_figures(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> tuple[float, ...]:
    """COCO's twelve: AP, AP50, AP75, AP by size, AR with 1, 10, 100 results, AR by size; NaN where undefined."""
    everywhere, last = 0, -1
    average = [precision[..., everywhere, last], *(precision[index, ..., everywhere, last] for index in (0, 5))]
    average += [precision[..., size, last] for size in (1, 2, 3)]
    found = [recall[..., everywhere, kept] for kept in range(recall.shape[-1])]
    found += [recall[..., size, last] for size in (1, 2, 3)]
    return tuple(mean_of_defined(values) for values in average + found)


def figures_per_class(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """`ap`, `ap50`, `ap75`, `ar100` per class (K,), NaN for classes without a true object."""
    of_all, found = precision[..., 0, -1], recall[..., 0, -1]
    tables: dict[str, Any] = {"ap": of_all, "ap50": of_all[:1], "ap75": of_all[5:6], "ar100": found}
    return {
        name: np.array([mean_of_defined(values[..., label]) for label in range(values.shape[-1])])
        for name, values in tables.items()
    }


def _outside(areas: NDArray[np.float64], rules: MatchingRules) -> NDArray[np.bool_]:
    """(A, N): the area is outside the range; both borders are inside."""
    low, high = np.array(rules.area_ranges).T[:, :, None]
    return (areas[None] < low) | (areas[None] > high)


def _curve(
    outcome: NDArray[np.uint64], positives: int, recalls: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision at each recall (T, R) and the final recall (T,) from outcomes (T, n) in falling score."""
    precision = np.zeros((len(outcome), len(recalls)))
    if not outcome.shape[1]:
        return precision, np.zeros(len(outcome))
    hits = np.cumsum(outcome == RIGHT, axis=1).astype(np.float64)
    misses = np.cumsum(outcome == WRONG, axis=1).astype(np.float64)
    reached = hits / positives
    exact = hits / (misses + hits + np.spacing(1))
    best_from_here = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    for threshold, curve in enumerate(reached):
        places = np.searchsorted(curve, recalls, side="left")
        places = places[places < len(curve)]
        precision[threshold, : len(places)] = best_from_here[threshold, places]
    return precision, reached[:, -1]


def _sort_key(key: Hashable) -> tuple[bool, Any]:
    """Numbers in their order, then the rest by name."""
    return (False, key) if isinstance(key, int | float) else (True, str(key))
