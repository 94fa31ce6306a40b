"""Boundaries of masks: the band along a mask's rim, and the IoU of two such bands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.panoptic import VOID, PanopticQuality, Scene, match_overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# 2 % of the picture's diagonal, as boundary IoU was published (Cheng et al. 2021); its authors use 0.008 for LVIS.
DILATION_RATIO = 0.02


def band_width(size: tuple[int, int], dilation_ratio: float = DILATION_RATIO) -> int:
    """Width of the band in pixels, at least 1: `dilation_ratio` of the diagonal of a picture of size (H, W)."""
    if not 0 < dilation_ratio < 1:
        raise ValueError(
            f"dilation_ratio is {dilation_ratio}: expected a share of the picture's diagonal in (0, 1), e.g. 0.02"
        )
    height, width = size
    return max(1, round(dilation_ratio * float(np.sqrt(height**2 + width**2))))


def boundary_of(mask: NDArray[np.generic], dilation_ratio: float = DILATION_RATIO) -> NDArray[np.bool_]:
    """The pixels of each mask (..., H, W) that lie near its rim; what is outside the picture is not in the mask.

    Near: a square of `band_width` pixels to each side is not wholly inside the mask. Returns (..., H, W) bool.
    """
    mask = as_mask(mask)
    if mask.ndim < 2:
        raise ValueError(f"mask has shape {mask.shape}: expected (..., H, W)")
    return boundary_of_width(mask, band_width((mask.shape[-2], mask.shape[-1]), dilation_ratio))


def boundary_of_width(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """`boundary_of` with the band's width in pixels: for masks cut out of a picture that ends outside of the mask."""
    band = np.zeros(mask.shape, dtype=bool)
    # Nothing outside the box around the masks can be a boundary, and large pictures hold mostly small masks.
    box = (..., _extent(mask, -1), _extent(mask, -2))
    inner = mask[box]
    band[box] = inner & ~_erode(_erode(inner, width, -1), width, -2)
    return band


def boundary_iou(
    prediction: NDArray[np.generic], truth: NDArray[np.generic], dilation_ratio: float = DILATION_RATIO
) -> float:
    """IoU of the boundaries of two masks (H, W); NaN where both masks are empty."""
    prediction, truth = as_mask(prediction), as_mask(truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    bands = boundary_of(prediction, dilation_ratio), boundary_of(truth, dilation_ratio)
    union = np.count_nonzero(bands[0] | bands[1])
    return np.count_nonzero(bands[0] & bands[1]) / union if union else float("nan")


class BoundaryPanopticQuality(PanopticQuality):
    """Panoptic quality where a pair's IoU is the smaller one of its mask IoU and its boundary IoU."""

    def __init__(
        self, num_classes: int, is_thing: Sequence[bool] | None = None, *, dilation_ratio: float = DILATION_RATIO
    ) -> None:
        super().__init__(num_classes, is_thing)
        band_width((1, 1), dilation_ratio)
        self.dilation_ratio = dilation_ratio

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.dilation_ratio != self.dilation_ratio:
            raise ValueError(
                f"cannot merge a metric with dilation_ratio {other.dilation_ratio} into one with {self.dilation_ratio}"
            )
        super().merge(other)

    def update_scene(self, scene: Scene) -> None:
        """Count one picture."""
        # The inside of a segment keeps neither its id nor void, so that it is in no intersection, and void stays void.
        inside = max(scene.prediction_classes.keys() | scene.truth_classes.keys(), default=VOID) + 1
        rims = replace(
            scene,
            prediction=self._with_rims(scene.prediction, inside),
            truth=self._with_rims(scene.truth, inside),
            prediction_classes={**scene.prediction_classes, inside: -1},
            truth_classes={**scene.truth_classes, inside: -1},
            pairs=None,
        ).overlaps(self.num_classes)
        rims = replace(rims, truth_areas=rims.areas.sum(2))
        self.counts.add(match_overlaps(scene.overlaps(self.num_classes), self.num_classes, stricter=(rims,)))

    def _with_rims(self, ids: NDArray[np.integer], inside: int) -> NDArray[np.int64]:
        is_kept = (ids == VOID) | rims_of(ids, self.dilation_ratio)
        return np.where(is_kept, ids, inside).astype(np.int64, copy=False)


def rims_of(ids: NDArray[np.integer], dilation_ratio: float = DILATION_RATIO) -> NDArray[np.bool_]:
    """The boundary pixels of all segments of id maps (..., H, W) at once: as `boundary_of` for each id."""
    size = (ids.shape[-2], ids.shape[-1])
    width = band_width(size, dilation_ratio)
    rims = np.ones(ids.shape, dtype=bool)
    if min(size) <= 2 * width:
        return rims
    # A square lies in one segment if each of its rows is of one id and so is its middle column.
    along = _all_in_run(ids[..., 1:] == ids[..., :-1], 2 * width, -1)
    down = _all_in_run(ids[..., 1:, :] == ids[..., :-1, :], 2 * width, -2)
    rows = _all_in_run(along, 2 * width + 1, -2)
    rims[..., width:-width, width:-width] = ~(rows & down[..., width:-width])
    return rims


def as_mask(mask: NDArray[np.generic]) -> NDArray[np.bool_]:
    """A mask as booleans; other arrays must hold zeros and ones only."""
    mask = np.asarray(mask)
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(f"mask holds {mask.min()} to {mask.max()}: expected booleans, or zeros and ones")
    return mask.astype(bool, copy=False)


def _extent(mask: NDArray[np.bool_], other_axis: int) -> slice:
    """From the first to the last place along the axis that is not `other_axis`, of the last two, with a mask."""
    occupied = mask.any(axis=other_axis)
    places = np.flatnonzero(occupied.reshape(-1, occupied.shape[-1]).any(axis=0))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)


def _erode(mask: NDArray[np.bool_], radius: int, axis: int) -> NDArray[np.bool_]:
    """Keep pixels whose neighbours up to `radius` along `axis` are all in the mask."""
    length = mask.shape[axis]
    eroded = np.zeros(mask.shape, dtype=bool)
    if length > 2 * radius:
        inner = np.moveaxis(eroded, axis, -1)[..., radius : length - radius]
        inner[...] = np.moveaxis(_all_in_run(mask, 2 * radius + 1, axis), axis, -1)
    return eroded


def _all_in_run(mask: NDArray[np.bool_], length: int, axis: int) -> NDArray[np.bool_]:
    """Where each run of `length` pixels along `axis` starts: is all of it in the mask? Shorter by length - 1."""
    mask = np.moveaxis(mask, axis, -1)
    # Runs of 1, 2, 4 .. pixels, then one overlap: few passes however long the run is.
    done = 1
    while done < length:
        step = min(done, length - done)
        mask = mask[..., :-step] & mask[..., step:]
        done += step
    return np.moveaxis(mask, -1, axis)
