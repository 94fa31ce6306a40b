"""Score predictions made by anything against the truth, both as files in the standard formats."""

from __future__ import annotations

import argparse
import difflib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omg_transformers.evaluation.report import Report

SUMMARY = "score prediction files against the truth"
IOU_TYPES = ("segm", "bbox", "boundary")
MAX_COLUMNS = 9
PROTOCOLS = ("semi-supervised", "unsupervised")


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What a task reads, the figures it gives, and the options that are its own."""

    figures: str
    truth: str
    prediction: str
    example: str
    options: tuple[str, ...] = ()


LABELS = ("num_classes", "label_space", "ignore_index", "reduce_labels")
TASKS = {
    "panoptic": ScoreTask(
        "PQ, SQ, RQ of all, things and stuff, and by class",
        "COCO panoptic JSON; its PNGs lie in the folder of the same name beside it, or in --gt-folder",
        "the same; each picture of the truth must be in it",
        "omg-seg score --task panoptic --gt panoptic_val2017.json --pred found/panoptic.json --out scores",
        ("gt_folder", "pred_folder", "boundary", "dilation_ratio"),
    ),
    "instance": ScoreTask(
        "COCO's AP and AR, and AP by class",
        "COCO instances JSON",
        "COCO results JSON: a list of {image_id, category_id, score, segmentation or bbox}",
        "omg-seg score --task instance --gt instances_val2017.json --pred coco.json --iou-type segm --iou-type bbox",
        ("iou_type", "dilation_ratio"),
    ),
    "semantic": ScoreTask(
        "mIoU, accuracies, and IoU by class",
        "folder of PNGs, one class per pixel (palette, 8 or 16 bit), classes counted from 0; subfolders too",
        "folder of PNGs of the same names",
        "omg-seg score --task semantic --gt annotations/validation --pred found/classes --label-space ade20k "
        "--reduce-labels",
        LABELS,
    ),
    "video_panoptic": ScoreTask(
        "VPQ by window and STQ, and by class",
        "VIPSeg JSON (videos, annotations, categories) with panomasksRGB beside it or --gt-folder; or a folder "
        "VIDEO/FRAME.png of 16-bit panomasks with panoVIPSeg_categories.json",
        "folder with pred.json and pan_pred/VIDEO/FRAME.png, as VIPSeg's programs read it; or panomasks",
        "omg-seg score --task video_panoptic --gt panoptic_gt_VIPSeg_val.json --pred found --windows 1 2 4 6",
        ("gt_folder", "pred_folder", "windows", "categories", "videos"),
    ),
    "video_instance": ScoreTask(
        "YouTube-VIS AP and AR, and AP by class",
        "YouTube-VIS JSON (videos, annotations, categories)",
        "results JSON: a list of {video_id, category_id, score, segmentations}",
        "omg-seg score --task video_instance --gt instances.json --pred results.json",
    ),
    "video_semantic": ScoreTask(
        "mIoU over all frames, video consistency mVC8 and mVC16, and IoU by class",
        "folder VIDEO/FRAME.png or, as VSPW, VIDEO/mask/FRAME.png, one class per pixel",
        "folder VIDEO/FRAME.png of the same names",
        "omg-seg score --task video_semantic --gt VSPW_480p/data --pred found --num-classes 124 --reduce-labels "
        "--videos VSPW_480p/val.txt",
        (*LABELS, "videos"),
    ),
    "video_object": ScoreTask(
        "DAVIS J&F, and J and F by object",
        "folder VIDEO/FRAME.png of palette PNGs with object ids, 255 = void (DAVIS/Annotations/480p)",
        "folder VIDEO/FRAME.png with the same ids",
        "omg-seg score --task video_object --gt DAVIS/Annotations/480p --pred found "
        "--videos DAVIS/ImageSets/2017/val.txt",
        ("protocol", "late_objects", "videos"),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, both sides, and the options of single tasks."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _describe_tasks()
    parser.add_argument("--task", type=_task, required=True, metavar="TASK", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--gt", type=Path, required=True, help="the truth: JSON file or folder, see below")
    parser.add_argument("--pred", type=Path, required=True, help="the predictions: JSON file or folder, see below")
    parser.add_argument("--out", type=Path, help="folder for results.json and per_class.csv (only printed)")
    parser.add_argument("--gt-folder", type=Path, help="folder of the truth's PNGs, where it is not beside its JSON")
    parser.add_argument("--pred-folder", type=Path, help="the same of the predictions")
    parser.add_argument("--boundary", action="store_true", default=None, help="panoptic: boundary PQ as well")
    parser.add_argument("--dilation-ratio", type=float, help="width of boundaries, share of the diagonal (0.02)")
    parser.add_argument(
        "--iou-type", action="append", choices=IOU_TYPES, help="instance: what is compared, repeatable (segm)"
    )
    parser.add_argument("--num-classes", type=int, help="semantic: number of classes")
    parser.add_argument("--label-space", help="semantic: names of the classes, built-in space or JSON file")
    parser.add_argument(
        "--ignore-index", type=int, help="semantic: the only true value that does not count (all that are no class)"
    )
    parser.add_argument(
        "--reduce-labels", nargs="?", const="truth", choices=("truth", "both"),
        help="semantic: 0 is no class and 1 the first one, as in ADE20K and VSPW, in the truth, or in both",
    )  # fmt: skip
    parser.add_argument("--windows", type=int, nargs="+", metavar="K", help="video_panoptic: frames (1 2 4 6)")
    parser.add_argument("--categories", type=Path, help="video_panoptic: list of categories where --gt is a folder")
    parser.add_argument("--videos", type=Path, help="file of the videos to score, one name per line (all)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="video_object: DAVIS's rules (semi-supervised)")
    parser.add_argument(
        "--late-objects", action="store_true", default=None, help="video_object: judge objects not in the first frame"
    )


def run(options: argparse.Namespace) -> int:
    """Score, print the figures, write them."""
    _require_options_of_task(options)
    from omg_transformers.cli.folders import prepare_folder
    from omg_transformers.cli.score_tasks import SCORERS
    from omg_transformers.evaluation.report import Stopwatch, format_report, write_report

    if options.out is not None:
        prepare_folder(options.out)
    watch = Stopwatch()
    report = _with_warnings_as_notes(SCORERS[options.task], options)
    print(format_report(_narrow(report)))
    if options.out is not None:
        settings = {name: _plain(value) for name, value in _given(options).items()}
        details = {**report.details, "settings": settings, **watch.details()}
        write_report(replace(report, details=details), options.out)
        print(f"written: {options.out}")
    return 0


def _with_warnings_as_notes(score: Callable[[argparse.Namespace], Report], options: argparse.Namespace) -> Report:
    """What was left out is printed once, with the figures, and is in the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        report = score(options)
    notes = dict.fromkeys([*report.notes, *(str(warning.message) for warning in caught)])
    return replace(report, notes=tuple(notes))


def _narrow(report: Report) -> Report:
    """The first columns of a table that is too wide for a screen; the file has all."""
    columns = dict(list(report.class_columns.items())[:MAX_COLUMNS])
    return replace(report, class_columns=columns)


def _require_options_of_task(options: argparse.Namespace) -> None:
    known = {name for task in TASKS.values() for name in task.options}
    own = TASKS[options.task].options
    foreign = [name for name in _given(options) if name in known and name not in own]
    if foreign:
        takers = [name for name, task in TASKS.items() if foreign[0] in task.options]
        raise ValueError(
            f"{_flag(foreign[0])} does nothing for --task {options.task}: it is an option of {', '.join(takers)}"
        )


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in ("command", "debug", "version")
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _task(text: str) -> str:
    if text in TASKS:
        return text
    nearest = difflib.get_close_matches(text, TASKS, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise argparse.ArgumentTypeError(f"there is no task {text!r}, tasks are {', '.join(TASKS)}{hint}")


def _describe_tasks() -> str:
    lines: list[str] = ["tasks, and what --gt and --pred are:"]
    for name, task in TASKS.items():
        lines += ["", f"{name}: {task.figures}"]
        lines += _wrapped(f"--gt    {task.truth}", indent=10)
        lines += _wrapped(f"--pred  {task.prediction}", indent=10)
        if task.options:
            lines += _wrapped(f"options: {', '.join(map(_flag, task.options))}", indent=11)
        lines.append(f"  $ {task.example}")
    lines += ["", "Missing predictions are an error, superfluous ones are left out, counted and listed."]
    return "\n".join(lines)


def _wrapped(text: str, *, indent: int) -> Iterable[str]:
    import textwrap

    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent=" " * indent)
