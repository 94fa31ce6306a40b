"""A contact sheet: what the annotations of a data set look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.data.doctor.sheet import Cell, cell_of_sample, draw_sheet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

    from omg_transformers.data.sources import SampleSource

SIDE = 320


def draw_preview(
    sources: Mapping[str, SampleSource], *, num: int = 12, title: str = "", columns: int = 4
) -> tuple[Image, list[str]]:
    """Overlays with names of `num` samples, evenly spread over all sources; of a clip a few frames in a row.

    Also returns the messages of samples that cannot be shown. Raises ValueError when none can.
    """
    if num < 1:
        raise ValueError(f"num is {num}: expected at least one sample")
    cells: list[Cell] = []
    failures: list[str] = []
    for name, source, index in _chosen(sources, num):
        try:
            sample = source.sample(index)
            caption = f"{name}: {sample.sample_id}" if name else sample.sample_id
            cells.append(cell_of_sample(sample, caption, side=SIDE))
        except (ValueError, OSError) as error:
            failures.append(" ".join(str(error).split()))
    if not cells:
        raise ValueError(f"no sample can be shown: {failures[0] if failures else 'there is none'}")
    return draw_sheet(cells, title=title, columns=columns), failures


def _chosen(sources: Mapping[str, SampleSource], num: int) -> list[tuple[str, SampleSource, int]]:
    """The first of an endless source count as its samples."""
    every = [
        (name, source, index)
        for name, source in sources.items()
        for index in range(num if source.num_samples is None else source.num_samples)
    ]
    places = np.unique(np.linspace(0, len(every) - 1, min(num, len(every))).round().astype(int))
    return [every[place] for place in places.tolist()]
