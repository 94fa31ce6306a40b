"""Colours for classes that have none of their own."""

from __future__ import annotations

import colorsys

# Turning the hue by the golden ratio spreads any number of colours evenly (Ankerl 2009).
_GOLDEN_RATIO = 0.618033988749895
_SATURATION_AND_VALUE = ((0.85, 0.95), (0.55, 0.85), (0.95, 0.65), (0.40, 1.00), (0.70, 0.75))


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """`count` different colours as (red, green, blue) in 0..255, never black; the first n do not depend on `count`."""
    colors: dict[tuple[int, int, int], None] = {}
    step = 0
    while len(colors) < count:
        saturation, value = _SATURATION_AND_VALUE[(step // 8) % len(_SATURATION_AND_VALUE)]
        red, green, blue = colorsys.hsv_to_rgb(step * _GOLDEN_RATIO % 1.0, saturation, value)
        colors[round(255 * red), round(255 * green), round(255 * blue)] = None
        step += 1
    return list(colors)
