"""The tasks of `omg-seg score`: files in, `Report` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from omg_transformers.evaluation.report import Report
from omg_transformers.metrics.boundary import DILATION_RATIO
from omg_transformers.metrics.label_png import describe_folder

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from numpy.typing import NDArray

    from omg_transformers.metrics.coco_results import DetectionScores
    from omg_transformers.metrics.semantic_folders import SemanticScore

Columns = dict[str, "NDArray[Any]"]
# Sums over matched pairs: neither a share nor a count, and `sq` times `tp`.
SUMMED = "iou"


def score_panoptic(options: argparse.Namespace) -> Report:
    """PQ of COCO panoptic files, and boundary PQ where it is asked for."""
    from omg_transformers.metrics.panoptic_files import score_panoptic_files

    _require_file(options.gt, "--gt", "a COCO panoptic JSON file")
    _require_file(options.pred, "--pred", "a COCO panoptic JSON file")
    ratios = {"": None, "boundary_": _ratio(options)} if options.boundary else {"": None}
    figures: dict[str, float] = {}
    columns: Columns = {}
    for prefix, ratio in ratios.items():
        score = score_panoptic_files(
            options.gt,
            options.pred,
            options.gt_folder,
            options.pred_folder,
            dilation_ratio=ratio,
            progress=progress_of("picture"),
        )
        figures |= _prefixed(score.compute(), prefix)
        columns |= _prefixed(_without_sums(score.per_class()), prefix)
    return Report("panoptic", figures, score.num_pictures, score.category_names, columns, score.notes)


def score_instance(options: argparse.Namespace) -> Report:
    """COCO AP of a results file: of masks under plain names, `bbox_` and `boundary_` before the others."""
    from omg_transformers.metrics.coco_results import score_coco_results

    _require_file(options.gt, "--gt", "a COCO instances JSON file")
    _require_file(options.pred, "--pred", "a COCO results JSON file")
    scores = {
        "" if kind == "segm" else f"{kind}_": score_coco_results(
            options.gt, options.pred, kind, dilation_ratio=_ratio(options)
        )
        for kind in dict.fromkeys(options.iou_type or ["segm"])
    }
    return _detection_report("instance", scores)


def score_semantic(options: argparse.Namespace) -> Report:
    """Mean IoU of folders of class PNGs."""
    from omg_transformers.metrics.semantic_folders import score_semantic_folders

    names = class_names(options)
    score = score_semantic_folders(
        options.gt, options.pred, len(names), progress=progress_of("picture"), **_label_rules(options)
    )
    return _semantic_report("semantic", score, names)


def score_video_panoptic(options: argparse.Namespace) -> Report:
    """VPQ and STQ of VIPSeg files."""
    from omg_transformers.metrics.video_panoptic import WINDOWS
    from omg_transformers.metrics.vipseg_files import score_vipseg_files

    score = score_vipseg_files(
        options.gt,
        options.pred,
        options.gt_folder,
        options.pred_folder,
        categories=options.categories,
        videos=read_names(options.videos),
        windows=options.windows or WINDOWS,
        progress=progress_of("video"),
    )
    videos = dict(zip(score.video_names, map(_known, score.tracking.per_video()), strict=True))
    details = {"num_frames": score.num_frames, "videos": videos}
    names = score.category_names
    columns = _without_sums(score.per_class())
    return Report("video_panoptic", score.compute(), len(videos), names, columns, score.notes, details)


def score_video_instance(options: argparse.Namespace) -> Report:
    """YouTube-VIS AP of a results file."""
    from omg_transformers.metrics.video_average_precision import score_youtube_vis_results

    _require_file(options.gt, "--gt", "a YouTube-VIS JSON file")
    _require_file(options.pred, "--pred", "a YouTube-VIS results JSON file")
    score = score_youtube_vis_results(options.gt, options.pred, progress=progress_of("video"))
    return _detection_report("video_instance", {"": score})


def score_video_semantic(options: argparse.Namespace) -> Report:
    """Mean IoU and video consistency of folders of class PNGs."""
    from omg_transformers.metrics.semantic_folders import score_video_semantic_folders

    names = class_names(options)
    score = score_video_semantic_folders(
        options.gt,
        options.pred,
        len(names),
        videos=read_names(options.videos),
        progress=progress_of("video"),
        **_label_rules(options),
    )
    return _semantic_report("video_semantic", score, names)


def score_video_object(options: argparse.Namespace) -> Report:
    """J&F of folders of DAVIS PNGs; the rows of the table are objects."""
    from omg_transformers.metrics.davis_folders import score_davis_folders
    from omg_transformers.metrics.video_object import FIGURES, VideoObjectQuality

    metric = VideoObjectQuality(options.protocol or "semi-supervised", with_late_objects=bool(options.late_objects))
    score_davis_folders(
        options.gt, options.pred, read_names(options.videos), metric=metric, progress=progress_of("video")
    )
    rows = metric.per_object()
    titles = [f"{row['sequence']}_{row['object']}" for row in rows]
    columns = {name: np.array([row[name] for row in rows]) for name in (*FIGURES, "proposal", "frames")}
    num_videos = len({row["sequence"] for row in rows})
    return Report("video_object", metric.compute(), num_videos, titles, columns, tuple(metric.skipped))


SCORERS: Mapping[str, Callable[[argparse.Namespace], Report]] = {
    "panoptic": score_panoptic,
    "instance": score_instance,
    "semantic": score_semantic,
    "video_panoptic": score_video_panoptic,
    "video_instance": score_video_instance,
    "video_semantic": score_video_semantic,
    "video_object": score_video_object,
}


def progress_of(unit: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar over things of this kind, where someone watches."""
    return lambda items: tqdm(items, unit=unit, disable=None)


def class_names(options: argparse.Namespace) -> list[str]:
    """One name per class, from --label-space, or numbers up to --num-classes."""
    if options.label_space is None:
        if options.num_classes is None:
            raise ValueError(f"--task {options.task} needs --num-classes, or --label-space for their names")
        return [str(number) for number in range(options.num_classes)]
    names = _label_space_names(options.label_space)
    if options.num_classes not in (None, len(names)):
        raise ValueError(
            f"--num-classes is {options.num_classes}, label space {options.label_space} has {len(names)} classes: "
            "leave one out"
        )
    return names


def read_names(path: Path | None) -> list[str] | None:
    """The lines of a split file, None without one."""
    if path is None:
        return None
    _require_file(path, "--videos", "a text file with one name per line")
    names = path.read_text(encoding="utf-8").split()
    repeated = {name for name in names if names.count(name) > 1}
    if repeated or not names:
        raise ValueError(f"--videos {path}: {'names twice: ' + ', '.join(sorted(repeated)) if names else 'no names'}")
    return names


def _label_space_names(source: str) -> list[str]:
    from pathlib import Path

    from omg_transformers.formats.atomic_file import read_json
    from omg_transformers.labels import LabelSpace, builtin_label_space

    if Path(source).is_file():
        return list(LabelSpace.from_dict(read_json(source)).names)
    return list(builtin_label_space(source).names)


def _label_rules(options: argparse.Namespace) -> dict[str, Any]:
    return {"ignore_index": options.ignore_index, "reduction": options.reduce_labels}


def _semantic_report(task: str, score: SemanticScore, names: list[str]) -> Report:
    from omg_transformers.metrics.video_semantic import VideoSemanticQuality

    details: dict[str, Any] = {"num_frames": score.num_frames}
    if isinstance(score.metric, VideoSemanticQuality):
        details["videos"] = {row["name"]: _known(row) for row in score.metric.per_video()}
    return Report(task, score.compute(), len(score.names), names, score.pixels.per_class(), score.notes, details)


def _detection_report(task: str, scores: Mapping[str, DetectionScores]) -> Report:
    """One report of several kinds of overlap, each with the prefix of its figures."""
    figures: dict[str, float] = {}
    columns: Columns = {}
    for prefix, score in scores.items():
        figures |= _prefixed(score.figures, prefix)
        columns |= _prefixed(score.per_class(), prefix)
    first = next(iter(scores.values()))
    notes = dict.fromkeys(note for score in scores.values() for note in score.notes)
    if first.num_unanswered:
        notes[f"{first.num_unanswered} of {first.num_samples} samples have no result"] = None
    details = {"backends": {score.kind: score.backend for score in scores.values()}}
    return Report(task, figures, first.num_samples, first.category_names, columns, tuple(notes), details)


def _require_file(path: Path, option: str, expected: str) -> None:
    if not path.is_file():
        raise ValueError(f"{option} {path} is {describe_folder(path)}: expected {expected}")


def _ratio(options: argparse.Namespace) -> float:
    return DILATION_RATIO if options.dilation_ratio is None else options.dilation_ratio


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its name, None for NaN: JSON has none."""
    return {key: None if value != value else value for key, value in row.items() if key != "name"}


def _prefixed(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in values.items()}


def _without_sums(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if name.partition("_")[0] != SUMMED}
