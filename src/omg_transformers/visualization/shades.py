"""One colour per segment: the class's own, and for several things of one class its neighbours on the colour circle."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.labels import LabelSpace

Color = tuple[int, int, int]

# The golden ratio's fractional part: each further step lands in the largest gap that is left on the circle.
GOLDEN_STEP = 0.618034


def segment_colors(labels: Sequence[int], label_space: LabelSpace | None) -> list[Color]:
    """A colour for each segment. labels: class of each, -1 = none.

    Stuff and the first thing of a class have the class's colour; further things of the class are shifted in hue and
    lightness, so that neighbours differ.
    """
    seen: dict[int, int] = {}
    colors = []
    for label in labels:
        number = seen.get(label, 0)
        seen[label] = number + 1
        colors.append(_color(label, number, label_space))
    return colors


class TrackColors:
    """Colours for a video: an id keeps the one it got when it was seen first."""

    def __init__(self, label_space: LabelSpace | None) -> None:
        self._label_space = label_space
        self._colors: dict[int, Color] = {}
        self._seen: dict[int, int] = {}

    def of(self, ids: Sequence[int], labels: Sequence[int]) -> list[Color]:
        """A colour for each segment of a frame, as `segment_colors` chooses them for what is new."""
        for identity, label in zip(ids, labels, strict=True):
            if identity not in self._colors:
                number = self._seen.get(label, 0)
                self._seen[label] = number + 1
                self._colors[identity] = _color(label, number, self._label_space)
        return [self._colors[identity] for identity in ids]


def lightness(color: Color) -> float:
    """How light a colour looks, 0 (black) to 1 (white)."""
    return (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]) / 255


def _color(label: int, number: int, label_space: LabelSpace | None) -> Color:
    if label_space is None or label < 0:
        return _from_hsv((0.58 + number * GOLDEN_STEP) % 1, 0.75, 1.0)
    return _shifted(label_space.colors[label], number) if label_space.is_thing[label] else label_space.colors[label]


def _shifted(color: Color, number: int) -> Color:
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    # Things stand out from stuff: bright and saturated, whatever grey the class's colour is.
    saturation, value = max(saturation, 0.55), max(value, 0.75)
    hue = (hue + number * GOLDEN_STEP) % 1 if number else hue
    return _from_hsv(hue, saturation - 0.15 * (number % 3 == 2), value - 0.18 * (number % 2))


def _from_hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
