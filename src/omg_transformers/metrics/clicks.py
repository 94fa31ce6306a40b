"""Interactive segmentation: a robot that clicks as the field's protocol says, and figures over its clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.ndimage import distance_transform_edt

from omg_transformers.metrics.prompt import mask_iou

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

MAX_CLICKS = 20
THRESHOLDS = (0.85, 0.9)
AFTER_CLICKS = (1, 3, 5, 10)


@dataclass(frozen=True, slots=True)
class Click:
    """A pixel that belongs to the object (is_positive) or does not. x, y: from 0, of the picture."""

    x: int
    y: int
    is_positive: bool


class RobotUser:
    """The standard simulated user (RITM, Sofiiuk et al. 2021): clicks into the middle of the largest error.

    The next click is the pixel deepest inside what is missed or what is too much, by Euclidean distance, first in row
    order among equals; the missed part wins only if strictly deeper. The border of the picture ends an error region.
    No pixel is clicked twice. truth, ignore: (H, W) bool; errors on ignored pixels are no errors.
    """

    def __init__(self, truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None) -> None:
        self.truth = _mask(truth, "truth", None)
        self.judged = np.ones_like(self.truth) if ignore is None else ~_mask(ignore, "ignore", self.truth.shape)
        self.clicks: list[Click] = []

    def next_click(self, mask: NDArray[np.bool_] | None = None) -> Click | None:
        """The next click, given the current mask (H, W), None: nothing yet. None if there is nothing to correct."""
        current = np.zeros_like(self.truth) if mask is None else _mask(mask, "mask", self.truth.shape)
        missed = self._depths(self.truth & ~current)
        surplus = self._depths(current & ~self.truth)
        is_positive = bool(missed.max(initial=0) > surplus.max(initial=0))
        depths = missed if is_positive else surplus
        if not depths.max(initial=0):
            return None
        y, x = divmod(int(depths.argmax()), depths.shape[1])
        click = Click(x, y, is_positive)
        self.clicks.append(click)
        return click

    def iou(self, mask: NDArray[np.bool_]) -> float:
        """IoU of a mask (H, W) with the truth, outside the ignored pixels."""
        return mask_iou(_mask(mask, "mask", self.truth.shape), self.truth, ~self.judged)

    def _depths(self, errors: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How deep inside the errors each pixel lies, (H, W); 0 where there was a click."""
        errors = errors & self.judged
        depths = np.zeros(errors.shape)
        rows, columns = np.flatnonzero(errors.any(1)), np.flatnonzero(errors.any(0))
        if len(rows):
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            depths[window] = distance_transform_edt(np.pad(errors[window], 1))[1:-1, 1:-1]
        for click in self.clicks:
            depths[click.y, click.x] = 0
        return depths


def click_through(
    segment: Callable[[list[Click]], NDArray[np.bool_]],
    robot: RobotUser,
    *,
    max_clicks: int = MAX_CLICKS,
    stop_at: float | None = None,
) -> list[float]:
    """Let the robot correct what `segment` makes of its clicks; the IoU after each click.

    segment: all clicks so far -> mask (H, W). stop_at: enough, the clicks after it are not made; None: go on until
    nothing is left to correct.
    """
    ious: list[float] = []
    mask: NDArray[np.bool_] | None = None
    while len(ious) < max_clicks and robot.next_click(mask) is not None:
        mask = segment(list(robot.clicks))
        ious.append(robot.iou(mask))
        if stop_at is not None and ious[-1] >= stop_at:
            break
    return ious


class ClickMetric:
    """Number of clicks to a wanted IoU (NoC), and the mean IoU after k clicks.

    An object that never gets there counts `max_clicks`, as in the reference. Its last IoU stands for the clicks that
    were not made. IoUs are kept, compared and averaged in single precision, as in the reference: at most 4 * max_clicks
    bytes per object.
    """

    def __init__(
        self,
        *,
        max_clicks: int = MAX_CLICKS,
        thresholds: Sequence[float] = THRESHOLDS,
        after_clicks: Sequence[int] = AFTER_CLICKS,
    ) -> None:
        if max_clicks < 1:
            raise ValueError(f"max_clicks is {max_clicks}: expected at least 1")
        bad = [value for value in thresholds if not 0 < value <= 1]
        if bad:
            raise ValueError(f"thresholds holds {bad[0]}: expected IoUs in (0, 1], such as 0.85")
        if any(number < 1 for number in after_clicks):
            raise ValueError(f"after_clicks is {tuple(after_clicks)}: expected numbers of clicks, each at least 1")
        self.max_clicks = max_clicks
        self.thresholds = tuple(thresholds)
        self.after_clicks = tuple(number for number in after_clicks if number <= max_clicks)
        self.names: list[str] = []
        self.ious: list[NDArray[np.float32]] = []

    def update(self, ious: Sequence[float], *, name: str = "") -> None:
        """Count one object: its IoU after each click, at least one. IoUs after `max_clicks` clicks do not count."""
        values = np.asarray(ious, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"{name or 'ious'}: {len(values) if values.ndim else 0} IoUs, expected one per click made")
        bad = values[~((values >= 0) & (values <= 1))]
        if len(bad):
            raise ValueError(f"{name or 'ious'}: an IoU is {bad[0]}, expected values in [0, 1]")
        self.names.append(name)
        self.ious.append(values[: self.max_clicks].astype(np.float32))

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if (other.max_clicks, other.thresholds) != (self.max_clicks, self.thresholds):
            raise ValueError(
                f"other counts {other.max_clicks} clicks to {other.thresholds}, this metric {self.max_clicks} to "
                f"{self.thresholds}: give both the same settings"
            )
        self.names += other.names
        self.ious += other.ious

    def compute(self) -> dict[str, float]:
        """`iou_<k>` after k clicks in [0, 1], `noc_<threshold in %>` in clicks, and `over_max_<threshold in %>`.

        over_max: objects that need `max_clicks` clicks or more, those included that get there with the last one.
        """
        figures = {f"iou_{number}": self.mean_iou(number) for number in self.after_clicks}
        for threshold in self.thresholds:
            needed = self.clicks_needed(threshold)
            title = f"{100 * threshold:g}"
            figures[f"noc_{title}"] = float(needed.mean()) if len(needed) else float("nan")
            figures[f"over_max_{title}"] = float(np.count_nonzero(needed == self.max_clicks))
        return figures

    def mean_iou(self, num_clicks: int) -> float:
        """Mean over objects of the IoU after `num_clicks` clicks; added up in single precision, as in the reference."""
        return float(np.mean([ious[:num_clicks][-1] for ious in self.ious])) if self.ious else float("nan")

    def clicks_needed(self, threshold: float) -> NDArray[np.int64]:
        """Per object the first click after which its IoU is at least `threshold`, else `max_clicks`."""
        reached = [ious >= np.float32(threshold) for ious in self.ious]
        return np.array([hit.argmax() + 1 if hit.any() else self.max_clicks for hit in reached], dtype=np.int64)

    def per_object(self) -> list[dict[str, Any]]:
        """One row per object: `name`, `clicks` made, `first_iou`, `last_iou`, and `noc_<threshold in %>`."""
        needed = {threshold: self.clicks_needed(threshold) for threshold in self.thresholds}
        return [
            {
                "name": name or str(index),
                "clicks": len(ious),
                "first_iou": float(ious[0]),
                "last_iou": float(ious[-1]),
                **{f"noc_{100 * threshold:g}": int(counts[index]) for threshold, counts in needed.items()},
            }
            for index, (name, ious) in enumerate(zip(self.names, self.ious, strict=True))
        ]


def _mask(values: NDArray[Any], name: str, shape: tuple[int, ...] | None) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.ndim != 2 or (shape is not None and mask.shape != shape):
        wanted = "(H, W); give one frame of a clip at a time" if shape is None else f"{shape}, as the truth"
        raise ValueError(f"{name} has shape {mask.shape}: expected {wanted}")
    if mask.dtype != bool:
        raise TypeError(f"{name} has dtype {mask.dtype}: expected bool")
    return mask
