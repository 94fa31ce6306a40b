"""Small annotated pictures in rows, and bars of how often classes occur."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from omg_transformers.data.frames import decode_frame
from omg_transformers.ops.masks import rle_box
from omg_transformers.visualization import draw_truth, shown_frames
from omg_transformers.visualization.lettering import font, shortened, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omg_transformers.data.doctor.report import SplitReport
    from omg_transformers.structures import Sample

MARGIN, GAP, LETTERS = 12, 8, 13
LINE = round(LETTERS * 1.6)
PAPER, INK, PALE_INK, MARK = (255, 255, 255), (30, 30, 30), (110, 110, 110), (230, 30, 30)
BAR, STUFF_BAR = (70, 120, 190), (150, 175, 130)
BAR_LENGTH, MAX_BARS, NAME_WIDTH = 420, 60, 170


class Cell(NamedTuple):
    """Pictures beside each other with a line of text above."""

    caption: str
    pictures: Sequence[NDArray[np.uint8]]


def cell_of_sample(
    sample: Sample, caption: str, *, side: int, frames: Sequence[int] = (), segment: int | None = None
) -> Cell:
    """The annotated picture, or a few frames of the clip. frames: only these. segment: gets a red box."""
    frames = frames or shown_frames(len(sample.frames))
    side = side if len(frames) == 1 else round(side * 0.75)
    return Cell(caption, [_panel(sample, number, segment, side) for number in frames])


def draw_sheet(cells: Sequence[Cell], *, title: str = "", columns: int = 4) -> Image.Image:
    """A page of all cells, row by row; a cell of several pictures has a row of its own."""
    rows: list[list[Cell]] = []
    for cell in cells:
        is_wide = len(cell.pictures) > 1
        if rows and not is_wide and len(rows[-1][0].pictures) == 1 and len(rows[-1]) < columns:
            rows[-1].append(cell)
        else:
            rows.append([cell])
    width = max([_width(row) for row in rows] + [text_width(title, LETTERS + 4)], default=0) + 2 * MARGIN
    top = MARGIN + (LINE + 6 if title else 0)
    height = top + sum(_height(row) + LINE + GAP for row in rows) + MARGIN
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, INK, font(LETTERS + 4), anchor="la")
    y = top
    for row in rows:
        x = MARGIN
        for cell in row:
            room = sum(picture.shape[1] + GAP for picture in cell.pictures) - GAP
            draw.text((x, y + LINE // 2), shortened(cell.caption, LETTERS, room), PALE_INK, font(LETTERS), anchor="lm")
            for picture in cell.pictures:
                page.paste(Image.fromarray(picture), (x, y + LINE))
                x += picture.shape[1] + GAP
        y += _height(row) + LINE + GAP
    return page


def draw_histogram(split: SplitReport) -> Image.Image:
    """One bar per class that occurs: share of the pixels (on a scale of roots), and its number of segments."""
    counts = split.counts
    order = sorted((label for label, count in enumerate(counts.segments) if count), key=lambda i: -counts.pixels[i])
    left, row = MARGIN + NAME_WIDTH + GAP, LINE
    shown = order[:MAX_BARS]
    page = Image.new("RGB", (left + BAR_LENGTH + 190, MARGIN * 2 + row * (len(shown) + 2)), PAPER)
    draw = ImageDraw.Draw(page)
    rest = f" (the most frequent {MAX_BARS} of {len(order)})" if len(order) > MAX_BARS else ""
    draw.text((MARGIN, MARGIN), f"{split.name or 'classes'}: share of the pixels{rest}", INK, font(LETTERS + 2))
    largest = max((counts.pixels[label] for label in shown), default=1)
    for place, label in enumerate(shown, 1):
        y = MARGIN + row * (place + 0.5) + 4
        name = shortened(split.label_space.names[label], LETTERS, NAME_WIDTH)
        draw.text((left - GAP, y), name, INK, font(LETTERS), anchor="rm")
        end = left + BAR_LENGTH * (counts.pixels[label] / largest) ** 0.5
        color = BAR if split.label_space.is_thing[label] else STUFF_BAR
        draw.rectangle((left, y - row * 0.35, end, y + row * 0.35), fill=color)
        share = counts.pixels[label] / max(counts.total, 1)
        text = f"{share:.2%}, {counts.segments[label]} in {counts.samples[label]}"
        draw.text((end + GAP, y), text, PALE_INK, font(LETTERS), anchor="lm")
    return page


def _panel(sample: Sample, number: int, segment: int | None, side: int) -> NDArray[np.uint8]:
    annotation = sample.annotation
    frame = decode_frame(sample.frames[number], name=sample.sample_id, expected_size=annotation.size)
    drawn = draw_truth(np.asarray(frame), annotation, sample.label_space, number=number, side=side)
    if segment is None or annotation.segments[segment].masks[number] is None:
        return drawn
    canvas = Image.fromarray(drawn)
    scale = drawn.shape[1] / annotation.size[1]
    left, top, right, bottom = (edge * scale for edge in rle_box(annotation.segments[segment].masks[number]))
    box = (max(0, left - 4), max(0, top - 4), min(canvas.width - 1, right + 3), min(canvas.height - 1, bottom + 3))
    ImageDraw.Draw(canvas).rectangle(box, outline=MARK, width=3)
    return np.asarray(canvas)


def _width(row: Sequence[Cell]) -> int:
    return sum(picture.shape[1] + GAP for cell in row for picture in cell.pictures) - GAP


def _height(row: Sequence[Cell]) -> int:
    return max((picture.shape[0] for cell in row for picture in cell.pictures), default=0)
