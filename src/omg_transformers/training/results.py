"""What a run leaves to its user: a folder that `from_pretrained` loads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from omg_transformers.labels import Vocabulary
    from omg_transformers.model import OMGSegModel


def make_processor(
    model: OMGSegModel, vocabulary: Vocabulary, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> OMGSegProcessor:
    """What users will give their pictures to: they come out as large as in training, where they were of `size`."""
    edges = {"shortest_edge": min(size), "longest_edge": 2 * min(size)}
    pictures = OMGSegImageProcessor(size=edges, image_mean=list(mean), image_std=list(std))
    return OMGSegProcessor(pictures, next(iter((model.config.label_spaces or {}).values()), None), vocabulary)


def export_model(folder: Path, model: OMGSegModel, processor: OMGSegProcessor, *, half_size: bool = False) -> Path:
    """Write model, processor and vocabulary. half_size: weights in float16; they are read back as float32."""
    weights = {k: v.half() if half_size and v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
    return folder


def first_figures(figures: Mapping[str, float], count: int = 4) -> str:
    """A line about a measurement: its main figures, which come first; the others are in the run's files."""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in list(figures.items())[:count])
    return shown + (f" and {len(figures) - count} more" if len(figures) > count else "")


def chosen_figure(figures: Sequence[Mapping[str, float]], name: str) -> float:
    """The figure that tells which weights are best. figures: per entry of `evaluation`, "task/figure" -> value.

    name: of a figure, the mean over the entries that have it; "mean": over each entry's first one. What is undefined
    counts as 0. Raises ValueError for a figure that no entry has.
    """
    if name == "mean":
        values = [next(iter(entry.values())) for entry in figures]
    else:
        values = [entry[name] for entry in figures if name in entry]
        if not values and figures:
            known = sorted({figure for entry in figures for figure in entry})
            raise ValueError(f"best is {name!r}: there is no such figure{nearest(name, known)}")
    return sum(0.0 if math.isnan(value) else value for value in values) / max(len(values), 1)
