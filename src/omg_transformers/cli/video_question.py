"""What is looked for in a video: everything of some classes, or objects that are shown in the first frame."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.cli import question

if TYPE_CHECKING:
    from omg_transformers.inference import OMGSegPipeline
    from omg_transformers.inference.video_objects import ObjectSession
    from omg_transformers.inference.video_session import VideoSession

FINDS_ALL, FOLLOWS = "video_panoptic", "video_object"
VOID = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, names and model; the objects to follow; how the video is cut into windows."""
    question.add_arguments(parser)
    parser.add_argument(
        "--follow",
        action="append",
        type=_read_points,
        metavar='"x,y [x,y ..]"',
        help="follow the object at these points of the first frame; may be given for several objects",
    )
    parser.add_argument(
        "--box",
        action="append",
        type=_read_box,
        metavar="x1,y1,x2,y2",
        help="follow the object in this box of the first frame; may be given for several objects",
    )
    parser.add_argument(
        "--mask", type=Path, metavar="FIRST.png", help="follow the objects of this PNG, one per value but 0 (and 255)"
    )
    parser.add_argument("--window", type=question.read_count, help="frames that the model sees at once (1)")
    parser.add_argument("--overlap", type=int, help="how many of them it has seen in the window before (0)")
    parser.add_argument(
        "--mode", choices=("online", "offline"), help="answer at once (default), or read the whole video first"
    )


def check_arguments(options: argparse.Namespace) -> bool:
    """Whether given objects are followed. ValueError: arguments that do not belong together."""
    given = [f"--{name}" for name in ("follow", "box", "mask") if getattr(options, name) is not None]
    if given and options.task not in (None, FOLLOWS):
        raise ValueError(f"{given[0]} follows objects, and --task {options.task} does not: leave one of them out")
    if options.task == FOLLOWS and not given:
        raise ValueError(f"--task {FOLLOWS} follows what it is shown: give --follow, --box or --mask")
    names = ("labels", "seen_classes", "text_tower", "threshold", "window", "overlap", "mode")
    unused = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    if given and unused:
        raise ValueError(f"{', '.join(unused)} cannot be used with {given[0]}: objects are followed without classes")
    return bool(given)


def open_session(options: argparse.Namespace) -> VideoSession | ObjectSession:
    """The session that the arguments ask for; wrong names, tasks and prompts end here."""
    follows = check_arguments(options)
    masks = {} if options.mask is None else _read_masks(options.mask)
    pipeline = question.open_pipeline(options.model, options.device, options.text_tower)
    return _follow(pipeline, options, masks) if follows else _find(pipeline, options)


def _find(pipeline: OMGSegPipeline, options: argparse.Namespace) -> VideoSession:
    from omg_transformers.inference.video_session import VideoSession

    labels = question.read_labels(options.labels, pipeline.model.config.label_spaces or ())
    asked = {name: getattr(options, name) for name in ("threshold", "window", "overlap", "mode")}
    asked["seen_classes"] = question.read_seen_classes(options.seen_classes)
    asked = {name: value for name, value in asked.items() if value is not None}
    return VideoSession(pipeline.model, pipeline.processor, options.task or FINDS_ALL, labels, **asked)


def _follow(pipeline: OMGSegPipeline, options: argparse.Namespace, masks: dict[int, Any]) -> ObjectSession:
    from omg_transformers.inference.video_objects import ObjectSession

    session = ObjectSession(pipeline.model, pipeline.processor)
    for number, mask in masks.items():
        session.add_object(mask=mask, object_id=number)
    for box in options.box or ():
        session.add_object(box=box)
    for points in options.follow or ():
        session.add_object(points=points)
    return session


def _read_masks(path: Path) -> dict[int, Any]:
    """By id, the masks (H, W) of a PNG with a palette or one channel."""
    import numpy as np

    from omg_transformers.metrics.davis_folders import read_id_map

    values = read_id_map(path)
    ids = [int(value) for value in np.unique(values) if value != 0]
    if ids == [VOID]:  # black and white: one object
        return {1: values == VOID}
    if not set(ids) - {VOID}:
        raise ValueError(f"--mask {path} shows no object: its values other than 0 are the objects")
    return {value: values == value for value in ids if value != VOID}


def _read_points(text: str) -> list[list[float]]:
    return [_read_numbers(point, 2, "x,y", text) for point in text.split()] or [_read_numbers("", 2, "x,y", text)]


def _read_box(text: str) -> list[float]:
    return _read_numbers(text, 4, "x1,y1,x2,y2", text)


def _read_numbers(part: str, count: int, form: str, text: str) -> list[float]:
    try:
        numbers = [float(number) for number in part.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {form} in pixels of the first frame")
    return numbers
