"""The course of a run as a picture: its losses and its figures on held-out samples, over the steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from omg_transformers.formats.atomic_file import write_png
from omg_transformers.training.journal import EVALUATIONS, METRICS, read_journal
from omg_transformers.visualization.lettering import font, shortened, text_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PAPER, GRID, INK, PALE_INK = (255, 255, 255), (228, 228, 228), (30, 30, 30), (110, 110, 110)
# Told apart also by those who see red and green alike (Okabe and Ito 2008).
COLORS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90),
    (140, 86, 75), (148, 103, 189), (160, 160, 40),
)  # fmt: skip
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, MARGIN, LETTERS = 720, 300, 64, 34, 30, 14, 13
_SUM = (200, 200, 200)
_LEGEND = 300
# A loss changes from batch to batch; the line is its running mean over this share of the run.
_SMOOTHING = 0.03


def draw_curves(folder: Path) -> Image.Image:
    """Losses and held-out figures of the run in `folder`, from its metrics.jsonl and evaluations.jsonl."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for line in read_journal(folder / METRICS):
        for name, value in line.items():
            if value is not None and (name == "loss" or name.endswith("/total")):
                losses.setdefault(name.removesuffix("/total"), []).append((line["step"], value))
    figures: dict[str, list[tuple[float, float]]] = {}
    for line in read_journal(folder / EVALUATIONS):
        # A metric's first figure is the one that counts.
        for name in [name for name in line if "/" in name and line[name] is not None][:1]:
            figures.setdefault(f"{name} {line['held_out']}", []).append((line["step"], line[name]))
    charts = [("loss", {name: _smooth(points) for name, points in losses.items()})]
    if figures:
        charts.append(("held out", {name: np.array(points, np.float64) for name, points in figures.items()}))
    image = Image.new("RGB", (WIDTH + _LEGEND, HEIGHT * len(charts)), PAPER)
    for place, (title, lines) in enumerate(charts):
        _draw_chart(ImageDraw.Draw(image), title, lines, top=place * HEIGHT)
    return image


def write_curves(folder: Path) -> Path:
    """`draw_curves` as `curves.png` in the folder of the run."""
    return write_png(folder / "curves.png", draw_curves(folder))


def _smooth(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    found = np.array(points, np.float64)
    reach = max(1, int(len(found) * _SMOOTHING))
    sums = np.concatenate([[0.0], np.cumsum(found[:, 1])])
    ends = np.arange(1, len(found) + 1)
    starts = np.maximum(ends - reach, 0)
    found[:, 1] = (sums[ends] - sums[starts]) / (ends - starts)
    return found


def _draw_chart(draw: ImageDraw.ImageDraw, title: str, lines: Mapping[str, NDArray[np.float64]], *, top: int) -> None:
    draw.text((MARGIN, top + 8), title, INK, font(LETTERS + 2))
    if not lines:
        draw.text((LEFT, top + HEIGHT // 2), "nothing was recorded", PALE_INK, font(LETTERS))
        return
    everything = np.concatenate(list(lines.values()))
    (first, lowest), (last, highest) = everything.min(0), everything.max(0)
    if title == "loss":  # the first steps may be far above all others
        highest = min(highest, 1.5 * float(np.quantile(everything[:, 1], 0.98)))
    ticks = _ticks(min(0.0, float(lowest)), max(float(highest), float(lowest) + 1e-6))
    low, high = ticks[0], ticks[-1]
    floor, ceiling = top + HEIGHT - BOTTOM, top + TOP

    def place(point: NDArray[np.float64]) -> tuple[float, float]:
        share = (point[0] - first) / max(last - first, 1)
        rise = np.clip((point[1] - low) / (high - low), 0, 1)
        return LEFT + float(share) * (WIDTH - LEFT - MARGIN), floor - float(rise) * (floor - ceiling)

    for tick in ticks:
        y = place(np.array([first, tick]))[1]
        draw.line((LEFT, y, WIDTH - MARGIN, y), GRID)
        draw.text((LEFT - 8, y), f"{tick:.4g}", PALE_INK, font(LETTERS), anchor="rm")
    for step, anchor in ((first, "la"), (last, "ra")):
        x = place(np.array([step, low]))[0]
        draw.text((x, floor + 8), f"step {step:.0f}", PALE_INK, font(LETTERS), anchor=anchor)
    for number, (name, points) in enumerate(lines.items()):
        # The sum jumps with the tasks that take turns: it stays behind them.
        color = _SUM if name == "loss" else COLORS[number % len(COLORS)]
        corners = [place(point) for point in points]
        if len(corners) > 1:
            draw.line(corners, color, width=2, joint="curve")
        for x, y in corners if len(corners) < 40 else ():
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), color)
        y = ceiling + number * round(LETTERS * 1.6)
        draw.rectangle((WIDTH, y - 5, WIDTH + 14, y - 2), color)
        words = f"{name} {points[-1, 1]:.3g}"
        room = _LEGEND - 24 - MARGIN
        text = words if text_width(words, LETTERS) <= room else shortened(words, LETTERS, room)
        draw.text((WIDTH + 20, y - 4), text, INK, font(LETTERS), anchor="lm")


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers, the first at or below `low`, the last at or above `high`."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    start, end = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(start, end + 1)]
