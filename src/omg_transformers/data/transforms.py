"""Geometry and colour on frames and annotation together; frames are decoded here, as late as possible."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from PIL import Image

from omg_transformers.data.frames import decode_frame, decode_frames
from omg_transformers.data.regions import redraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.data.regions import Mask
    from omg_transformers.structures import Sample


class Transform(Protocol):
    """Turns a sample into one with (H, W, 3) uint8 frames and an annotation of that size."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """All chance comes from `rng`."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A resize to `resized_size`, then the window `size` at `origin` (row, column) of it, then a mirror.

    One geometry holds for all frames of a clip and for its masks.
    """

    source_size: tuple[int, int]
    resized_size: tuple[int, int]
    origin: tuple[int, int]
    size: tuple[int, int]
    is_flipped: bool = False

    def frame(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """The frame (h, w, 3) uint8, bilinear with antialiasing; `picture` may be a smaller copy of the source."""
        scale_y = picture.height / self.resized_size[0]
        scale_x = picture.width / self.resized_size[1]
        (top, left), (height, width) = self.origin, self.size
        box = (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
        box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
        window = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
        frame = np.asarray(window)
        return np.ascontiguousarray(frame[:, ::-1]) if self.is_flipped else frame

    def mask(self, mask: Mask) -> Mask:
        """The mask at the new size, nearest neighbour."""
        rows = _nearest(self.origin[0], self.size[0], self.resized_size[0], self.source_size[0])
        columns = _nearest(self.origin[1], self.size[1], self.resized_size[1], self.source_size[1])
        if self.is_flipped:
            columns = columns[::-1]
        # Columns first: masks come in Fortran order, where a column is one block.
        result: Mask = np.asfortranarray(mask[:, columns][rows])
        return result

    def apply(self, sample: Sample, *, min_area: int = 1) -> Sample:
        """Frames and annotation of the sample after this geometry."""
        return apply_geometries(sample, [self] * len(sample.frames), min_area=min_area)


@dataclass(frozen=True, slots=True)
class TrainTransform:
    """Random resize, random window of at most `size`, mirror and colours. `collate` pads what stays smaller.

    scale: the picture is fitted into `size` times a number drawn from this range. draw: how; the original OMG-Seg draws
    "uniform"ly, "log_uniform" shrinks as often as it enlarges. turns: fit a picture that is upright where `size` is
    broad, or broad where it is upright, as if `size` were turned, as the original does; the window is not turned.
    shares_window: all frames show the same window. False: each has its own, which makes motion of a still picture.
    color_jitter: brightness, contrast and saturation change by up to this share, the hue by a tenth of it of a turn.
    min_area: a segment with fewer pixels in the window becomes void there.
    """

    size: tuple[int, int] = (192, 192)
    scale: tuple[float, float] = (0.5, 2.0)
    draw: Literal["log_uniform", "uniform"] = "log_uniform"
    turns: bool = False
    shares_window: bool = True
    flip_probability: float = 0.5
    color_jitter: float = 0.3
    min_area: int = 16

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}: expected (height, width), both at least 1 pixel")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}: expected (lowest, highest), both above 0")
        if self.draw not in ("log_uniform", "uniform"):
            raise ValueError(f"draw is {self.draw!r}: expected 'log_uniform' or 'uniform'")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability is {self.flip_probability}: expected a share in [0, 1]")
        if not 0 <= self.color_jitter < 1:
            raise ValueError(f"color_jitter is {self.color_jitter}: expected a share in [0, 1)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new random view of the sample."""
        source_size = sample.annotation.size
        resized_size = scaled_size(source_size, self._draw_factor(rng) * self._fit(source_size))
        size = (min(self.size[0], resized_size[0]), min(self.size[1], resized_size[1]))
        slack = (resized_size[0] - size[0], resized_size[1] - size[1])
        num_frames = len(sample.frames)
        origins = [
            (int(rng.integers(0, slack[0] + 1)), int(rng.integers(0, slack[1] + 1)))
            for _ in range(1 if self.shares_window else num_frames)
        ]
        origins = origins * num_frames if self.shares_window else origins
        is_flipped = rng.random() < self.flip_probability
        geometries = [Geometry(source_size, resized_size, origin, size, is_flipped) for origin in origins]
        result = apply_geometries(sample, geometries, min_area=self.min_area)
        if self.color_jitter == 0:
            return result
        matrix = color_matrix(rng, self.color_jitter)
        return replace(result, frames=tuple(recolor(frame, matrix) for frame in result.frames))

    def _draw_factor(self, rng: np.random.Generator) -> float:
        if self.draw == "uniform":
            return float(rng.uniform(*self.scale))
        return math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))

    def _fit(self, source_size: tuple[int, int]) -> float:
        """The factor with which a picture just fits into `size`, turned or not."""
        target, source = (sorted(self.size), sorted(source_size)) if self.turns else (self.size, source_size)
        return min(side / length for side, length in zip(target, source, strict=True))


@dataclass(frozen=True, slots=True)
class EvalTransform:
    """Resize with the aspect ratio kept, no window, no chance. With both sides given, the smaller result counts.

    shortest_side: wanted length of the shorter side. longest_side: the longer one does not pass it. None: no rule.
    """

    shortest_side: int | None = None
    longest_side: int | None = None

    def __post_init__(self) -> None:
        for name in ("shortest_side", "longest_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1 pixel, or None")

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        """The resized sample; `rng` is not used."""
        del rng
        source_size = sample.annotation.size
        factors = []
        if self.shortest_side is not None:
            factors.append(self.shortest_side / min(source_size))
        if self.longest_side is not None:
            factors.append(self.longest_side / max(source_size))
        resized_size = scaled_size(source_size, min(factors, default=1.0))
        return Geometry(source_size, resized_size, (0, 0), resized_size).apply(sample)


def apply_geometries(sample: Sample, geometries: Sequence[Geometry], *, min_area: int = 1) -> Sample:
    """The sample after one geometry per frame; all have the same sizes."""
    pictures = _decode(sample, geometries[0].resized_size)
    frames = tuple(geometry.frame(picture) for geometry, picture in zip(geometries, pictures, strict=True))
    changes = [geometry.mask for geometry in geometries]
    annotation = redraw(sample.annotation, geometries[0].size, changes, min_area=min_area)
    return replace(sample, frames=frames, annotation=annotation)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """`size` times `factor`, rounded, at least 1 pixel."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def color_matrix(rng: np.random.Generator, amount: float) -> np.ndarray[Any, Any]:
    """A random (3, 4) matrix on RGB 0..255 and 1: brightness, contrast, saturation and a small turn of the hue."""
    brightness, contrast, saturation = 1 + amount * rng.uniform(-1, 1, 3)
    angle = 2 * math.pi * amount / 10 * rng.uniform(-1, 1)
    weights = np.array([0.299, 0.587, 0.114])
    grey = np.tile(weights, (3, 1))
    # A turn around the grey axis.
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * axis
    linear = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey) @ turn
    return np.concatenate([linear, np.full((3, 1), 128 * (1 - contrast))], 1)


def recolor(frame: Any, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The frame (h, w, 3) uint8 after a matrix of `color_matrix`, clipped."""
    numbers = tuple(float(value) for value in matrix.reshape(-1))
    return np.asarray(Image.fromarray(frame).convert("RGB", numbers))


def _decode(sample: Sample, at_least: tuple[int, int]) -> list[Image.Image]:
    first = sample.frames[0]
    if any(frame is not first for frame in sample.frames):
        return decode_frames(sample, at_least=at_least)
    # A picture, or a clip that repeats one.
    size = sample.annotation.size
    return [decode_frame(first, name=sample.sample_id, expected_size=size, at_least=at_least)] * len(sample.frames)


def _nearest(origin: int, length: int, resized: int, source: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Per new pixel the source pixel under its centre."""
    places = (origin + np.arange(length) + 0.5) * (source / resized)
    return np.minimum(places.astype(np.int64), source - 1)
