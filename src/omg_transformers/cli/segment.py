"""Segment pictures, or folders of them: overlays with names and scores, PNGs of ids and classes, COCO JSON."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omg_transformers.cli.results import ResultFolder
    from omg_transformers.inference import OMGSegPipeline

SUMMARY = "segment pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures, what to ask, and where to put the answers."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="pictures, or folders of pictures")
    parser.add_argument("--out", type=Path, default=Path("omg_seg_output"), help="output folder (%(default)s)")
    parser.add_argument("--task", help="a task head, see `omg-seg heads` (the model's own default)")
    parser.add_argument(
        "--labels",
        help='names with commas, synonyms with |: "person, sofa|couch, grass"; or the name of a label space',
    )
    parser.add_argument("--model", help="folder of a model (the small one inside this package)")
    parser.add_argument(
        "--text-tower",
        metavar="TAG|FILE",
        help="open_clip weights of the model's text tower, a tag or a local file: --labels may then be any text "
        "(only for models with an open_clip backbone, such as converted ones)",
    )
    parser.add_argument("--threshold", type=_score, help="leave out what scores below, 0 to 1 (the task's own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (a GPU if there is one)")
    parser.add_argument("--batch-size", type=_count, default=1, help="pictures per forward pass (%(default)s)")
    parser.add_argument("--legend", action="store_true", help="list the names below each overlay")


def run(options: argparse.Namespace) -> int:
    """Segment all pictures. 1 when one of them failed; the others are done nevertheless, and it is named."""
    from omg_transformers.cli.folders import find_pictures, prepare_folder, unique_names
    from omg_transformers.processing.pictures import PICTURE_SUFFIXES

    paths = find_pictures(options.images, PICTURE_SUFFIXES)
    prepare_folder(options.out)
    pipeline = open_pipeline(options.model, options.device, options.text_tower)
    labels = read_labels(options.labels, pipeline.model.config.label_spaces or ())
    question = {"task": options.task, "labels": labels, "threshold": options.threshold}
    question = {name: value for name, value in question.items() if value is not None}
    request = pipeline.request(**question)  # wrong names and tasks end here, before any picture is read
    if request.head.spec.query_type != "learned":
        raise ValueError(f"task {request.head.spec.name!r} needs a prompt for each picture: use the pipeline in Python")
    from omg_transformers.cli.results import ResultFolder

    results = ResultFolder(options.out, request.label_space, legend=options.legend)
    named = list(zip(paths, unique_names(paths), strict=True))
    failures: dict[Path, str] = {}
    try:
        for batch in _batches(named, options.batch_size):
            failures.update(_segment_batch(pipeline, batch, question, results))
    finally:
        results.finish()
    done = len(paths) - len(failures)
    print(f"{done} of {len(paths)} pictures segmented: {options.out}")
    for path, reason in failures.items():
        print(f"failed: {path}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def read_labels(text: str | None, own_spaces: Collection[str]) -> list[str] | str | None:
    """Names as the user typed them: a list; or one text when it is, or is meant as, the name of a label space.

    own_spaces: names of the checkpoint's label spaces, besides the built-in ones.
    """
    if text is None:
        return None
    from omg_transformers.labels import builtin_label_space_names

    names = [name.strip() for name in text.split(",")]
    spaces = [*own_spaces, *builtin_label_space_names()]
    # Names of spaces have underscores, names of things seldom: "coco_panoptik" is a slip, "potted_plant" is not.
    is_slip = "_" in names[0] and bool(difflib.get_close_matches(names[0], spaces, n=1, cutoff=0.8))
    return names[0] if len(names) == 1 and (names[0] in spaces or is_slip) else names


def open_pipeline(model: str | None, device: str | None, text_tower: str | None) -> OMGSegPipeline:
    """The pipeline that the options of a command ask for."""
    from transformers.utils import logging

    from omg_transformers import OMGSegConfig, default_checkpoint
    from omg_transformers.cli.text_tower import open_text_tower
    from omg_transformers.inference import load_pipeline

    logging.disable_progress_bar()
    vocabulary = None
    if text_tower is not None:
        vocabulary = open_text_tower(OMGSegConfig.from_pretrained(model or default_checkpoint()), text_tower)
    return load_pipeline(model, device=device, vocabulary=vocabulary)


def _batches(named: Sequence[tuple[Path, str]], size: int) -> Iterator[Sequence[tuple[Path, str]]]:
    """Batches, with a progress bar when there is more than one picture."""
    from tqdm import tqdm

    with tqdm(total=len(named), unit="picture", disable=len(named) < 2) as bar:
        for start in range(0, len(named), size):
            batch = named[start : start + size]
            yield batch
            bar.update(len(batch))


def _segment_batch(
    pipeline: OMGSegPipeline, batch: Sequence[tuple[Path, str]], question: dict[str, Any], results: ResultFolder
) -> dict[Path, str]:
    """Segment and write one batch; returns what failed. A full disk is no picture's fault: OSError goes on."""
    from omg_transformers.processing.pictures import read_picture

    failures: dict[Path, str] = {}
    pictures = {}
    for path, name in batch:
        try:
            pictures[path, name] = read_picture(path)
        except ValueError as error:
            failures[path] = _one_line(error)
    answers: Sequence[Any] = []
    with contextlib.suppress(RuntimeError, ValueError):  # out of memory, say: then one by one
        answers = pipeline.segment(list(pictures.values()), **question)
    for index, ((path, name), picture) in enumerate(pictures.items()):
        try:
            segments = answers[index] if answers else pipeline.segment([picture], **question)[0]
        except (RuntimeError, ValueError) as error:
            failures[path] = _one_line(error)
            continue
        results.add(name, picture, segments)
    return failures


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a score from 0 to 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value
