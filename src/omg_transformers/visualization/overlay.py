"""Segments drawn over their picture: tinted masks, thin outlines, names with scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from omg_transformers.visualization.lettering import font, text_width
from omg_transformers.visualization.places import Box, Window, deepest_point, free_place
from omg_transformers.visualization.shades import Color, lightness, segment_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Segments

# A name is left out when its mask is nowhere as thick as this share of the letters' height: it would hide the object.
MIN_DEPTH = 0.35
# Below this side no letter can be read.
MIN_SIDE_FOR_NAMES = 64
# Stuff is tinted less, so that things stand out from it.
STUFF_OPACITY = 0.75


def draw_overlay(
    picture: NDArray[np.uint8],
    segments: Segments,
    label_space: LabelSpace | None,
    *,
    frame: int = 0,
    opacity: float = 0.45,
    names: bool = True,
    scores: bool = True,
    ids: bool = False,
    legend: bool = False,
    colors: Sequence[Color] | None = None,
) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with its segments drawn on it; with `legend`, a strip with all names is added below.

    opacity: of the tint, 0 to 1; outlines and names stay. names, with scores and ids of things: written at the deepest
    point of each mask, unless it is too small or another name is there. colors: per segment, as `segment_colors`.
    ValueError when picture and segments differ in size.
    """
    if picture.shape != (*segments.size, 3):
        raise ValueError(
            f"picture has shape {picture.shape} but the segments are for {segments.size}: draw on the picture that was "
            "segmented, (H, W, 3) uint8"
        )
    colors = segment_colors(segments.labels.tolist(), label_space) if colors is None else colors
    masks = _Frame(segments, frame)
    order = masks.large_first()
    shares = [opacity * (1 if _is_thing(label, label_space) else STUFF_OPACITY) for label in segments.labels.tolist()]
    image = Image.fromarray(_tinted(picture, masks, colors, order, shares))
    texts = [_text(segments, index, label_space, scores=scores, ids=ids) for index in range(len(segments))]
    if names and min(segments.size) >= MIN_SIDE_FOR_NAMES:
        _write_names(image, masks, colors, texts, order)
    result = np.asarray(image)
    return np.concatenate([result, _legend(segments, colors, texts)]) if legend and len(segments) else result


def _is_thing(label: int, label_space: LabelSpace | None) -> bool:
    return label_space is None or label < 0 or label_space.is_thing[label]


class _Frame:
    """The masks of one frame, each only in the window it fills: whole ones would not fit for a 4K picture."""

    def __init__(self, segments: Segments, frame: int) -> None:
        self._segments, self._number = segments, frame
        self._ids = segments.ids.tolist()
        self._id_map = None if segments.id_map is None else segments.id_map[frame].cpu().numpy()
        self._windows = [] if self._id_map is None else _windows_of_ids(self._id_map, self._ids)

    def part(self, index: int) -> tuple[Window, NDArray[np.bool_]] | None:
        """Where the mask is, and the mask there; None when it is empty."""
        if self._id_map is not None:
            window = self._windows[index]
            return None if window is None else (window, self._id_map[window] == self._ids[index])
        mask: NDArray[np.bool_] = self._segments.mask(index)[self._number].cpu().numpy()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        return window, mask[window]

    def large_first(self) -> list[int]:
        """The segments that are in this frame; small masks are drawn over large ones, so that none disappears."""
        parts = ((index, self.part(index)) for index in range(len(self._ids)))
        areas = {index: np.count_nonzero(part[1]) for index, part in parts if part is not None}
        return sorted(areas, key=lambda index: -areas[index])


def _windows_of_ids(id_map: NDArray[Any], ids: list[int]) -> list[Window | None]:
    """All windows in one pass over the picture."""
    if not ids:
        return []
    order = np.argsort(ids)
    ordered = np.asarray(ids)[order]
    places = np.searchsorted(ordered, id_map).clip(max=len(ids) - 1)
    found = ndimage.find_objects(np.where(ordered[places] == id_map, places + 1, 0), max_label=len(ids))
    windows: list[Window | None] = [None] * len(ids)
    for place, window in zip(order.tolist(), found, strict=True):
        windows[place] = None if window is None else (window[0], window[1])
    return windows


def _tinted(
    picture: NDArray[np.uint8], masks: _Frame, colors: Sequence[Color], order: list[int], shares: list[float]
) -> NDArray[np.uint8]:
    canvas = picture.copy()
    thickness = max(1, round(max(picture.shape) / 700))
    for index in order:
        part = masks.part(index)
        if part is None:
            continue
        window, inside = part
        color = np.array(colors[index], np.float32)
        tint = picture[window][inside] * np.float32(1 - shares[index]) + color * np.float32(shares[index])
        canvas[window][inside] = (tint + np.float32(0.5)).astype(np.uint8)
        # Half way to white: an outline of the tint's own colour would drown in it.
        edge = _outline(inside, window, picture.shape, thickness)
        canvas[window][edge] = (color * 0.55 + 255 * 0.45).astype(np.uint8)
    return canvas


def _outline(inside: NDArray[np.bool_], window: Window, shape: tuple[int, ...], thickness: int) -> NDArray[np.bool_]:
    """Pixels of the mask within `thickness` of its edge; the picture's edge is none."""
    rows, columns = window
    # The window's border is outside of the mask, except where the picture ends.
    frame = np.pad(inside, 1)
    frame[0] |= frame[1] & (rows.start == 0)
    frame[-1] |= frame[-2] & (rows.stop == shape[0])
    frame[:, 0] |= frame[:, 1] & (columns.start == 0)
    frame[:, -1] |= frame[:, -2] & (columns.stop == shape[1])
    core = ndimage.binary_erosion(frame, iterations=thickness, border_value=1)
    return inside & ~core[1:-1, 1:-1]


def _text(segments: Segments, index: int, label_space: LabelSpace | None, *, scores: bool, ids: bool) -> str:
    label, number = int(segments.labels[index]), f"#{int(segments.ids[index])}"
    if label_space is None or label < 0:
        name = number
    else:
        name = label_space.names[label]
        if ids and label_space.is_thing[label]:
            name = f"{name} {number}"
    return f"{name} {float(segments.scores[index]):.0%}" if scores else name


def _font_size(size: tuple[int, int]) -> int:
    return max(11, round((size[0] * size[1]) ** 0.5 / 38))


def _write_names(
    image: Image.Image, masks: _Frame, colors: Sequence[Color], texts: list[str], order: list[int]
) -> None:
    draw = ImageDraw.Draw(image)
    size = _font_size((image.height, image.width))
    stroke = max(1, round(size / 9))
    taken: list[Box] = []
    for index in order:
        part = masks.part(index)
        place = None if part is None else deepest_point(part[1])
        if part is None or place is None or place[2] < size * MIN_DEPTH:
            continue
        letters = font(size)
        left, top, right, bottom = draw.textbbox((0, 0), texts[index], font=letters, stroke_width=stroke)
        extent = (int(right - left) + 1, int(bottom - top) + 1)
        box = free_place(place[:2], extent, taken, part, (image.height, image.width))
        if box is None:
            continue
        taken.append(box)
        fill, edge = _readable(colors[index])
        draw.text((box[0] - left, box[1] - top), texts[index], fill, letters, stroke_width=stroke, stroke_fill=edge)


def _readable(color: Color) -> tuple[Color, Color]:
    """Letters and their outline: white on the darkened colour of the segment, readable on any picture."""
    strength = 0.35 if lightness(color) > 0.5 else 0.5
    edge = (round(color[0] * strength), round(color[1] * strength), round(color[2] * strength))
    return (255, 255, 255), edge


def _legend(segments: Segments, colors: Sequence[Color], texts: list[str]) -> NDArray[np.uint8]:
    """A white strip of the picture's width: a swatch and a name per segment, in as many columns as fit."""
    width = segments.size[1]
    size = _font_size(segments.size)
    row, swatch = round(size * 1.5), size
    cell = max(1, max(text_width(text, size) for text in texts) + swatch * 2)
    columns = max(1, width // cell)
    rows = -(-len(texts) // columns)
    image = Image.new("RGB", (width, rows * row + swatch // 2), "white")
    draw = ImageDraw.Draw(image)
    for index, text in enumerate(texts):
        x, y = (index % columns) * cell + swatch // 2, (index // columns) * row + swatch // 4
        draw.rectangle((x, y, x + swatch - 1, y + swatch - 1), fill=colors[index])
        draw.text((x + round(swatch * 1.4), y + swatch // 2), text, "black", font(size), anchor="lm")
    return np.asarray(image)
