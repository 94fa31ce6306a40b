"""J&F of predictions that lie in folders of DAVIS palette PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.metrics.label_png import MODES_8_BIT, describe_folder, listed, read_label_png
from omg_transformers.metrics.video_object import VideoObjectQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray


def score_davis_folders(
    truth: str | Path,
    prediction: str | Path,
    sequences: Sequence[str] | str | Path | None = None,
    *,
    metric: VideoObjectQuality | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> VideoObjectQuality:
    """Score `prediction/<sequence>/<frame>.png` against `truth/<sequence>/<frame>.png`; see `per_object`.

    sequences: their names, or a split file with one name per line (DAVIS/ImageSets/2017/val.txt); None: all folders
    of `truth`. metric: with the wanted task and options; a new semi-supervised one when None. The truth says which
    frames there are; semi-supervised predictions need not hold the first and the last. Predicted frames without truth
    and predicted sequences outside `sequences` are listed in the metric's `skipped`. All folders and file names are
    checked before the first picture is read. progress: wraps the loop over the sequences, e.g. `tqdm`.
    """
    truth, prediction = Path(truth), Path(prediction)
    metric = VideoObjectQuality() if metric is None else metric
    names = _sequence_names(truth, sequences)
    frames = {name: _frame_names(truth / name, prediction / name, metric.task) for name in names}
    for name, frame_names in frames.items():
        metric.require_length(name, len(frame_names))
    metric.skipped += _unused(prediction, frames)
    for name in progress(frames):
        frame_names = frames[name]
        true = _read_sequence([truth / name / frame for frame in frame_names])
        predicted = _read_predictions([prediction / name / frame for frame in frame_names], true)
        metric.update_maps(predicted, true, name=name, frame_names=[f"{name}/{frame}" for frame in frame_names])
    return metric


def read_id_map(path: str | Path) -> NDArray[np.uint8]:
    """The object ids (H, W) of a PNG with a palette or of one 8-bit channel."""
    return read_label_png(path, MODES_8_BIT).astype(np.uint8, copy=False)


def _sequence_names(truth: Path, sequences: Sequence[str] | str | Path | None) -> list[str]:
    if not truth.is_dir():
        raise ValueError(
            f"truth {truth} is {describe_folder(truth)}: expected a folder such as DAVIS's Annotations/480p"
        )
    if sequences is None:
        names = sorted(path.name for path in truth.iterdir() if path.is_dir())
    elif isinstance(sequences, (str, Path)):
        if not Path(sequences).is_file():
            raise ValueError(f"sequences is {sequences}: there is no such file; give a split file or a list of names")
        names = Path(sequences).read_text(encoding="utf-8").split()
    else:
        names = list(sequences)
    if not names:
        raise ValueError(f"sequences: there is none in {truth if sequences is None else sequences}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"sequences holds {', '.join(twice)} more than once: each sequence counts once")
    return names


def _frame_names(truth: Path, prediction: Path, task: str) -> list[str]:
    frames = sorted(path.name for path in truth.glob("*.png"))
    if not frames:
        raise ValueError(f"{truth} is {describe_folder(truth)}: expected one PNG file per frame")
    if not prediction.is_dir():
        parent = prediction.parent
        raise ValueError(
            f"{prediction} is missing: expected one folder of PNG files per sequence, {parent} is "
            f"{describe_folder(parent)}"
        )
    needed = frames if task == "unsupervised" else frames[1:-1]
    missing = [frame for frame in needed if not (prediction / frame).is_file()]
    if missing:
        raise ValueError(
            f"{prediction} lacks {len(missing)} of {len(needed)} frames: {listed(missing)}; frames are named as in "
            f"{truth}"
        )
    return frames


def _unused(prediction: Path, frames: dict[str, list[str]]) -> list[str]:
    lines = [
        f"{folder.name}: not among the sequences that are scored"
        for folder in sorted(prediction.iterdir())
        if folder.is_dir() and folder.name not in frames
    ]
    for name, frame_names in frames.items():
        extra = sorted({path.name for path in (prediction / name).glob("*.png")} - set(frame_names))
        lines += [f"{name}/{frame}: there is no truth for it" for frame in extra]
    return lines


def _read_sequence(paths: Sequence[Path]) -> NDArray[np.uint8]:
    maps = [read_id_map(path) for path in paths]
    for path, ids in zip(paths, maps, strict=True):
        if ids.shape != maps[0].shape:
            raise ValueError(f"{path} has size {ids.shape}, {paths[0].name} {maps[0].shape}: they must be equal")
    return np.stack(maps)


def _read_predictions(paths: Sequence[Path], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The predicted maps; frames that are not there are not judged, and stay empty."""
    maps = np.zeros_like(truth)
    for index, path in enumerate(paths):
        if path.is_file():
            ids = read_id_map(path)
            if ids.shape != truth.shape[1:]:
                raise ValueError(f"{path} has size {ids.shape}, its truth {truth.shape[1:]}: they must be equal")
            maps[index] = ids
    return maps
