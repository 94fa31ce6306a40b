"""Simple shapes and textures drawn with numpy: the material of procedural scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Array: TypeAlias = np.ndarray[Any, Any]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (40, 70, 210),
    "yellow": (240, 220, 40),
    "purple": (120, 50, 160),
    "orange": (250, 130, 20),
    "cyan": (60, 210, 220),
    "magenta": (225, 40, 190),
    "white": (245, 245, 245),
    "black": (22, 22, 22),
    "gray": (130, 130, 130),
    "brown": (120, 70, 35),
    "pink": (250, 170, 190),
}


def _polygon(num_sides: int) -> Callable[[Array, Array], Array]:
    angles = 2 * np.pi * np.arange(num_sides) / num_sides
    # The corners lie on the unit circle.
    reach = np.cos(np.pi / num_sides)

    def is_inside(x: Array, y: Array) -> Array:
        inside = np.ones(x.shape, np.bool_)
        for angle in angles:
            inside &= x * np.cos(angle) + y * np.sin(angle) <= reach
        return inside

    return is_inside


def _star(x: Array, y: Array) -> Array:
    turn = np.arctan2(y, x) % (2 * np.pi / 5)
    radius = np.hypot(x, y)
    # Five straight-edged points: the edge runs from radius 1 at a tip to 0.4 between two tips.
    half = np.pi / 5
    away = np.abs(turn - half)
    tip_x, tip_y = np.cos(half), np.sin(half)
    notch = 0.4
    along, across = radius * np.cos(away), radius * np.sin(away)
    result: Array = (along - notch) * tip_y <= across * (tip_x - notch)
    return result


def _heart(x: Array, y: Array) -> Array:
    u, v = 1.2 * x, -1.2 * y + 0.1
    result: Array = (u * u + v * v - 0.6) ** 3 <= u * u * v**3 * 1.4
    return result


# Each takes coordinates where the shape fills about the unit circle, y pointing down.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: x * x + y * y <= 0.85,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.75,
    "rectangle": lambda x, y: (np.abs(x) <= 0.95) & (np.abs(y) <= 0.5),
    "triangle": _polygon(3),
    "star": _star,
    "ellipse": lambda x, y: x * x + 3 * y * y <= 1,
    "ring": lambda x, y: np.abs(x * x + y * y - 0.6) <= 0.35,
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) <= 0.25) & (np.maximum(np.abs(x), np.abs(y)) <= 0.9),
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "diamond": lambda x, y: np.abs(x) / 0.6 + np.abs(y) <= 1,
    "crescent": lambda x, y: (x * x + y * y <= 1) & ((x - 0.45) ** 2 + y * y > 0.64),
    "heart": _heart,
}

GROUNDS: tuple[str, ...] = (
    "plain ground",
    "striped ground",
    "checkered ground",
    "dotted ground",
    "wavy ground",
    "noisy ground",
)


def draw_shape(shape: str, center: tuple[float, float], radius: float, angle: float, size: tuple[int, int]) -> Array:
    """Mask (h, w) bool of a shape. center: (x, y) and radius in pixels; angle in radians, clockwise on the screen."""
    height, width = size
    mask = np.zeros(size, np.bool_, order="F")
    left, right = max(0, int(center[0] - radius)), min(width, int(center[0] + radius) + 2)
    top, bottom = max(0, int(center[1] - radius)), min(height, int(center[1] + radius) + 2)
    if left >= right or top >= bottom:
        return mask
    x = (np.arange(left, right, dtype=np.float32) + 0.5 - center[0])[None] / radius
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - center[1])[:, None] / radius
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    mask[top:bottom, left:right] = SHAPES[shape](x * cosine + y * sine, y * cosine - x * sine)
    return mask


def draw_ground(ground: str, size: tuple[int, int], rng: np.random.Generator) -> Array:
    """A texture (h, w, 3) uint8 in two random colours."""
    y, x = (axis.astype(np.float32) for axis in np.ogrid[: size[0], : size[1]])
    period = np.float32(rng.uniform(6, 24))
    angle = rng.uniform(0, np.pi)
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    pattern: Array
    if ground == "striped ground":
        pattern = (u / period) % 1 < 0.5
    elif ground == "checkered ground":
        pattern = ((u // period) + (v // period)) % 2
    elif ground == "dotted ground":
        pattern = ((u % period) - period / 2) ** 2 + ((v % period) - period / 2) ** 2 < period**2 / 10
    elif ground == "wavy ground":
        pattern = 0.5 + 0.5 * np.sin(u / period * 3 + 2 * np.sin(v / period))
    elif ground == "noisy ground":
        pattern = rng.random(size, dtype=np.float32)
    else:
        pattern = np.zeros(size)
    first, second = rng.uniform(40, 215, 3), rng.uniform(40, 215, 3)
    mixed = first.astype(np.float32) + pattern.astype(np.float32)[..., None] * (second - first).astype(np.float32)
    return mixed.astype(np.uint8)
