"""New pictures from annotated ones: real objects are cut out and pasted into other pictures, labels included."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from PIL import Image, ImageFilter

from omg_transformers.data.frames import decode_frames
from omg_transformers.data.regions import decode_region, encode_region, region_area, replace_masks
from omg_transformers.data.sources import SampleError, ShuffledOrder, check_index, iterate
from omg_transformers.data.transforms import Geometry, color_matrix, recolor, scaled_size
from omg_transformers.structures import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omg_transformers.data.regions import Mask
    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Annotation, Sample

Entry = TypeVar("Entry")

# Smaller cut-outs are blurs once they are scaled up.
_MIN_CUT_OUT_AREA = 32 * 32
# How often a donor without a usable object is replaced by another.
_DONOR_TRIES = 4


@dataclass(frozen=True, slots=True)
class CutOut:
    """One object of a picture. pixels: (h, w, 3) uint8; alpha: (h, w) uint8, 0 outside, soft on a 1 px rim inside."""

    category_id: int
    pixels: np.ndarray[Any, Any]
    alpha: np.ndarray[Any, Any]


@dataclass(slots=True)
class _Layer:
    """A segment of the scene in the making; `area` is what it covered before anything hid it."""

    segment: Segment
    mask: Mask
    area: int
    is_touched: bool = False


class _Cache(Generic[Entry]):
    """What was made last, up to `max_bytes`."""

    def __init__(self, max_bytes: int, count_bytes: Callable[[Entry], int]) -> None:
        self._max_bytes, self._count_bytes = max_bytes, count_bytes
        self._num_bytes = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()

    def get(self, index: int, make: Callable[[int], Entry]) -> Entry:
        if index in self._entries:
            self._entries.move_to_end(index)
            return self._entries[index]
        entry = self._entries[index] = make(index)
        self._num_bytes += self._count_bytes(entry)
        while self._num_bytes > self._max_bytes and len(self._entries) > 1:
            self._num_bytes -= self._count_bytes(self._entries.popitem(last=False)[1])
        return entry


class ComposedScenes:
    """Endless pictures: number `index` is a pure function of the sources, `seed` and `index`.

    source: gives the pictures; donors: gives the objects, in the same label space; default `source` itself. Things that
    are no crowd and do not touch the border are cut out, scaled so that their longer side is a share from
    `object_scale` of the picture's shorter side, mirrored, slightly recoloured and pasted, later ones in front.
    num_objects: fewest and most pastes. max_side: pictures are reduced to it first (None: as they are).
    paste_probability: share of pictures that get objects; the others are handed on untouched.
    cache_megabytes: memory for decoded pictures and cut-outs, per process.
    min_visible: a thing of which less than this share stays visible becomes void; one that is fully hidden is removed.
    """

    num_samples = None

    def __init__(
        self,
        source: SampleSource,
        donors: SampleSource | None = None,
        *,
        num_objects: tuple[int, int] = (1, 5),
        object_scale: tuple[float, float] = (0.15, 0.7),
        max_side: int | None = 448,
        paste_probability: float = 1.0,
        min_visible: float = 0.15,
        cache_megabytes: int = 256,
        seed: int = 0,
    ) -> None:
        if not 0 <= num_objects[0] <= num_objects[1]:
            raise ValueError(f"num_objects is {num_objects}: expected (fewest, most), not negative")
        if not 0 < object_scale[0] <= object_scale[1]:
            raise ValueError(f"object_scale is {object_scale}: expected (smallest, largest), both above 0")
        if not 0 <= paste_probability <= 1:
            raise ValueError(f"paste_probability is {paste_probability}: expected a share in [0, 1]")
        if donors is not None and donors.label_space != source.label_space:
            raise ValueError(
                f"donors use the label space {donors.label_space.name!r}, source {source.label_space.name!r}: "
                "bring both into one with MappedSource"
            )
        self.source, self.donors = source, donors or source
        self.num_objects, self.object_scale, self.max_side = num_objects, object_scale, max_side
        self.paste_probability, self.min_visible, self.seed = paste_probability, min_visible, seed
        self._order = None if source.num_samples is None else ShuffledOrder(source.num_samples, (seed, 7002))
        self._cut_outs: _Cache[tuple[CutOut, ...]] = _Cache(cache_megabytes * 2**19, _num_bytes)
        self._pictures: _Cache[Sample] = _Cache(cache_megabytes * 2**19, _frame_bytes)

    @property
    def label_space(self) -> LabelSpace:
        """As the source."""
        return self.source.label_space

    @property
    def tasks(self) -> tuple[str, ...]:
        """As the source."""
        return self.source.tasks

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Picture number `index`. Each pass through the source uses every picture once, in a new order."""
        check_index(index, None, "composed scenes")
        rng = np.random.default_rng([self.seed, 7003, index])
        place = index if self._order is None else self._order[index]
        if rng.random() >= self.paste_probability:
            return self.source.sample(place)
        sample = self._pictures.get(place, self._reduced)
        canvas = np.array(sample.frames[0])
        layers = [_layer(segment, sample.annotation.size) for segment in sample.annotation.segments]
        void = decode_region(sample.annotation.void[0], sample.annotation.size)
        for cut_out in self._draw_cut_outs(rng):
            self._paste(canvas, layers, void, cut_out, rng)
        return replace(
            sample,
            sample_id=f"{sample.sample_id}+{index}",
            frames=(canvas,),
            annotation=self._annotation(sample.annotation, layers, void),
        )

    def cut_outs(self, index: int) -> tuple[CutOut, ...]:
        """The usable objects of donor `index`."""
        return self._cut_outs.get(index, lambda index: tuple(self._cut(self.donors.sample(index))))

    def _reduced(self, index: int) -> Sample:
        """The picture at working size, decoded."""
        sample = self.source.sample(index)
        if len(sample.frames) != 1:
            raise SampleError(f"{sample.sample_id} has {len(sample.frames)} frames: only pictures can be composed")
        source_size = sample.annotation.size
        factor = 1.0 if self.max_side is None else min(1.0, self.max_side / max(source_size))
        size = scaled_size(source_size, factor)
        return Geometry(source_size, size, (0, 0), size).apply(sample)

    def _draw_cut_outs(self, rng: np.random.Generator) -> list[CutOut]:
        """Objects of at most two donors: each donor costs a decoded picture."""
        wanted = int(rng.integers(self.num_objects[0], self.num_objects[1] + 1))
        pool: list[CutOut] = []
        end = self.donors.num_samples or 2**31
        for _ in range(_DONOR_TRIES if wanted else 0):
            had = len(pool)
            pool.extend(self.cut_outs(int(rng.integers(end))))
            if had and len(pool) > had:
                break
        return [pool[place] for place in rng.permutation(len(pool))[:wanted]]

    def _cut(self, sample: Sample) -> Iterator[CutOut]:
        annotation = sample.annotation
        picture: np.ndarray[Any, Any] | None = None
        for segment in annotation.segments:
            rle = segment.masks[0]
            is_thing = segment.category_id < 0 or annotation.is_thing[segment.category_id]
            if not is_thing or segment.is_crowd or region_area(rle) < _MIN_CUT_OUT_AREA:
                continue
            mask = decode_region(rle, annotation.size)
            if mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any():
                continue
            if picture is None:
                picture = np.asarray(decode_frames(sample)[0])
            yield _cut_out(segment.category_id, picture, mask, self.max_side)

    def _paste(
        self, canvas: np.ndarray[Any, Any], layers: list[_Layer], void: Mask, cut_out: CutOut, rng: np.random.Generator
    ) -> None:
        height, width = canvas.shape[:2]
        longest = min(height, width) * math.exp(
            rng.uniform(math.log(self.object_scale[0]), math.log(self.object_scale[1]))
        )
        # Enlarging by more than a half would show.
        factor = min(longest / max(cut_out.alpha.shape), 1.5)
        size = scaled_size((cut_out.alpha.shape[0], cut_out.alpha.shape[1]), factor)
        pixels, alpha = _resize_cut_out(cut_out, size, rng)
        # Up to a quarter of the object may leave the picture.
        top, left = (
            int(rng.integers(-(part // 4), max(side - part + part // 4, -(part // 4)) + 1))
            for part, side in zip(size, (height, width), strict=True)
        )
        rows = slice(max(0, top), min(height, top + size[0]))
        columns = slice(max(0, left), min(width, left + size[1]))
        window = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        alpha, pixels = alpha[window], pixels[window]
        hides = alpha > 0
        if np.count_nonzero(hides) < 16:
            return
        place = (rows, columns)
        weight = alpha.astype(np.uint16)[..., None]
        canvas[place] = (pixels * weight + canvas[place] * (255 - weight) + 127) // 255
        for layer in layers:
            before = layer.mask[place]
            if (before & hides).any():
                layer.mask[place] = before & ~hides
                layer.is_touched = True
        void[place] &= ~hides
        mask = np.zeros((height, width), np.bool_, order="F")
        mask[place] = hides
        segment = Segment(cut_out.category_id, (None,), _next_track_id(layers))
        layers.append(_Layer(segment, mask, int(np.count_nonzero(hides))))

    def _annotation(self, annotation: Annotation, layers: list[_Layer], void: Mask) -> Annotation:
        segments = []
        for layer in layers:
            segment = layer.segment
            is_stuff = segment.category_id >= 0 and not annotation.is_thing[segment.category_id]
            if layer.is_touched and not is_stuff and not segment.is_crowd:
                visible = int(np.count_nonzero(layer.mask))
                if visible < self.min_visible * layer.area:
                    void |= layer.mask
                    continue
            rle = encode_region(layer.mask)
            if rle is not None:
                segments.append(replace_masks(segment, (rle,)))
        size = (void.shape[0], void.shape[1])
        return replace(annotation, size=size, segments=tuple(segments), void=(encode_region(void),))


def _layer(segment: Segment, size: tuple[int, int]) -> _Layer:
    return _Layer(segment, decode_region(segment.masks[0], size), region_area(segment.masks[0]))


def _cut_out(category_id: int, picture: np.ndarray[Any, Any], mask: Mask, max_side: int | None) -> CutOut:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = (slice(rows[0] - 1, rows[-1] + 2), slice(columns[0] - 1, columns[-1] + 2))
    solid = Image.fromarray(mask[window].astype(np.uint8) * 255)
    # Soft to the inside only: outside the mask lie the donor's colours.
    soft = np.minimum(np.asarray(solid.filter(ImageFilter.BoxBlur(1))), np.asarray(solid))
    pixels = np.ascontiguousarray(picture[window])
    factor = 1.0 if max_side is None else min(1.0, max_side / max(soft.shape))
    if factor < 1:
        size = scaled_size((soft.shape[0], soft.shape[1]), factor)
        pixels = _resize(pixels, size)
        soft = _resize(soft, size)
    return CutOut(category_id, pixels, soft)


def _resize_cut_out(
    cut_out: CutOut, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    pixels = recolor(_resize(cut_out.pixels, size), color_matrix(rng, 0.15))
    alpha = _resize(cut_out.alpha, size)
    # Below one half the pixel shows more of the background than of the object.
    alpha = np.where(alpha >= 128, alpha, 0)
    return (pixels[:, ::-1], alpha[:, ::-1]) if rng.random() < 0.5 else (pixels, alpha)


def _resize(array: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _next_track_id(layers: list[_Layer]) -> int:
    return max((layer.segment.track_id for layer in layers), default=0) + 1


def _num_bytes(cut_outs: tuple[CutOut, ...]) -> int:
    return sum(cut_out.pixels.nbytes + cut_out.alpha.nbytes for cut_out in cut_outs)


def _frame_bytes(sample: Sample) -> int:
    return sum(frame.nbytes for frame in sample.frames if isinstance(frame, np.ndarray))
