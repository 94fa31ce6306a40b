"""One model on one data set: figures, table by class, confusion picture, the worst samples beside the truth."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.data.frames import decode_frames
from omg_transformers.evaluation.loop import Evaluation, evaluate
from omg_transformers.evaluation.report import Report, Stopwatch, write_report
from omg_transformers.formats.atomic_file import write_png
from omg_transformers.inference.processes import join_processes
from omg_transformers.visualization.confusion import draw_confusion
from omg_transformers.visualization.side_by_side import draw_side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omg_transformers.data import SampleSource
    from omg_transformers.evaluation.segmenters import Segmenter
    from omg_transformers.plugins import TaskHead

ANSWERS = "answers"
CONFUSION = "confusion.png"
WORST = "worst"


def evaluate_model(
    segmenter: Segmenter,
    head: TaskHead,
    source: SampleSource,
    out: Path | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    limit: int | None = None,
    prompts: str | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    num_worst: int = 8,
    show_progress: bool = False,
) -> Report:
    """Evaluate, and write everything into the folder `out`.

    about: what identifies the data, JSON. A folder with answers about other data or weights is refused; one about the
    same goes on where it was. The other arguments are those of `evaluate`.
    """
    watch = Stopwatch()
    space = source.label_space
    asked = {
        **(about or {}),
        "weights": segmenter.fingerprint,
        "task": head.spec.name,
        "prompts": prompts,
        "options": dict(options or {}),
        "classes": list(space.names),
    }
    found = evaluate(
        segmenter,
        head,
        source,
        limit=limit,
        prompts=prompts,
        options=options,
        batch_size=batch_size,
        num_worst=num_worst if out is not None else 0,
        journal=None if out is None else out / ANSWERS,
        about=asked,
        show_progress=show_progress,
    )
    state = join_processes()
    spent = watch.details()
    details = {
        **asked,
        "model": segmenter.name,
        "num_parameters": segmenter.num_parameters,
        "num_processes": state.num_processes,
        **spent,
        "seconds_per_sample": round(spent["seconds"] / max(len(found.samples), 1), 4),
        "samples": [
            {"id": sample.sample_id, "figure": None if math.isnan(sample.figure) else sample.figure}
            for sample in found.samples
        ],
    }
    notes = (*(f"left out: {reason}" for reason in found.skipped), *segmenter.notes)
    report = Report(head.spec.name, found.figures, len(found.samples), space.names, found.class_columns, notes, details)
    if out is not None and state.is_main_process:
        write_report(report, out)
        _draw(found, source, out, f"{segmenter.name}, {head.spec.name}")
    return report


def _draw(found: Evaluation, source: SampleSource, out: Path, title: str) -> None:
    if found.confusion is not None:
        write_png(out / CONFUSION, draw_confusion(found.confusion, source.label_space.names, title=title))
    folder = out / WORST
    # Those of an earlier start, on fewer samples, say.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for place, (sample_figure, segments) in enumerate(found.worst, 1):
        sample = source.sample(sample_figure.number)
        caption = f"{sample.sample_id}: {next(iter(found.figures))} {100 * sample_figure.figure:.1f}"
        frames = [np.asarray(frame) for frame in decode_frames(sample)]
        page = draw_side_by_side(frames, sample.annotation, segments, source.label_space, caption=caption)
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample.sample_id)
        write_png(folder / f"{place:02d}_{name[-80:]}.png", page)
