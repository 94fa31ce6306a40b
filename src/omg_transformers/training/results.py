"""What a run leaves to its user: a folder that `from_pretrained` loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

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


def chosen_figure(figures: Sequence[Mapping[str, object]], name: str) -> float:
    """The figure that tells which weights are best. figures: one line per held-out source, see evaluations.jsonl.

    name: of a figure, "task/figure", the mean over the sources that have it; "mean": over each source's first one.
    What is undefined counts as 0.
    """
    lines = [[(key, value) for key, value in line.items() if "/" in key] for line in figures]
    values = (
        [entries[0][1] for entries in lines if entries]
        if name == "mean"
        else [v for e in lines for k, v in e if k == name]
    )
    numbers = [value if isinstance(value, (int, float)) and value == value else 0.0 for value in values]
    return sum(numbers) / max(len(numbers), 1)
