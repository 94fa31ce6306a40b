"""Segment pictures, or folders of them: overlays with names and scores, PNGs of ids and classes, COCO JSON.

Any number of pictures, over any number of processes: `omg-seg segment FOLDER --shards`, also under
`accelerate launch -m omg_transformers segment FOLDER`, writes only lines of JSON, and goes on where it was killed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.cli import question

if TYPE_CHECKING:
    from omg_transformers.cli.results import ResultFolder
    from omg_transformers.inference import OMGSegPipeline

SUMMARY = "segment pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures, what to ask, and where to put the answers."""
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER|LIST.txt",
        help="pictures, folders of pictures, or text files with one path per line, relative to the text file",
    )
    parser.add_argument("--out", type=Path, default=Path("omg_seg_output"), help="output folder (%(default)s)")
    question.add_arguments(parser)
    parser.add_argument("--batch-size", type=question.read_count, default=1, help="pictures per forward pass (1)")
    parser.add_argument("--legend", action="store_true", help="list the names below each overlay")
    parser.add_argument(
        "--shards",
        action="store_true",
        help="for very many pictures: one folder or list; shard-*.jsonl of RLE masks and nothing else; a killed run "
        "goes on with the same command (always so under `accelerate launch` with several processes)",
    )


def run(options: argparse.Namespace) -> int:
    """Segment all pictures. 1 when one of them failed; the others are done nevertheless, and it is named."""
    if options.shards or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from omg_transformers.cli import segment_shards

        return segment_shards.run(options)
    from omg_transformers.cli.folders import find_pictures, prepare_folder, unique_names
    from omg_transformers.processing.pictures import PICTURE_SUFFIXES

    paths = find_pictures(options.images, PICTURE_SUFFIXES)
    prepare_folder(options.out)
    pipeline, asked = open_question(options, options.device)
    from omg_transformers.cli.results import ResultFolder

    results = ResultFolder(options.out, pipeline.request(**asked).label_space, legend=options.legend)
    named = list(zip(paths, unique_names(paths), strict=True))
    failures: dict[Path, str] = {}
    try:
        for batch in _batches(named, options.batch_size):
            failures.update(_segment_batch(pipeline, batch, asked, results))
    finally:
        results.finish()
    done = len(paths) - len(failures)
    print(f"{done} of {len(paths)} pictures segmented: {options.out}")
    for path, reason in failures.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def open_question(options: argparse.Namespace, device: Any) -> tuple[OMGSegPipeline, dict[str, Any]]:
    """The pipeline and what to ask it; wrong names and tasks end here, before any picture is read."""
    pipeline = question.open_pipeline(options.model, device, options.text_tower)
    labels = question.read_labels(options.labels, pipeline.model.config.label_spaces or ())
    seen = question.read_seen_classes(options.seen_classes)
    asked = {"task": options.task, "labels": labels, "seen_classes": seen, "threshold": options.threshold}
    asked = {name: value for name, value in asked.items() if value is not None}
    request = pipeline.request(**asked)
    if request.head.spec.query_type != "learned":
        raise ValueError(f"task {request.head.spec.name!r} needs a prompt for each picture: use the pipeline in Python")
    return pipeline, asked


def _batches(named: Sequence[tuple[Path, str]], size: int) -> Iterator[Sequence[tuple[Path, str]]]:
    """Batches, with a progress bar when there is more than one picture."""
    from tqdm import tqdm

    with tqdm(total=len(named), unit="picture", disable=len(named) < 2) as bar:
        for start in range(0, len(named), size):
            batch = named[start : start + size]
            yield batch
            bar.update(len(batch))


def _segment_batch(
    pipeline: OMGSegPipeline, batch: Sequence[tuple[Path, str]], asked: dict[str, Any], results: ResultFolder
) -> dict[Path, str]:
    """Segment and write one batch; returns what failed. A full disk is no picture's fault: OSError goes on."""
    from omg_transformers.inference.bulk import one_line, segment_each

    failures: dict[Path, str] = {}
    outcomes = segment_each(pipeline, [path for path, _ in batch], **asked)
    for (path, name), (picture, outcome) in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failures[path] = one_line(outcome)
        else:
            results.add(name, picture, outcome)
    return failures
