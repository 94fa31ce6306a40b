"""Mean IoU and video consistency of predictions that lie in folders of PNGs with one class per pixel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.metrics.label_png import describe_folder, listed, pngs_of, read_label_png, require_folder
from omg_transformers.metrics.semantic import ADE_OTHER, ADE_VOID, MeanIoU, reduce_labels
from omg_transformers.metrics.video_semantic import CLIP_LENGTHS, VideoSemanticQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Progress = Callable[[Iterable[str]], Iterable[str]]

REDUCTIONS = ("truth", "both")
# Values that nobody takes for a class, of 8 and 16 bit.
USUAL_VOIDS = (255, 65535)
# VSPW keeps the label maps of data/<video> in data/<video>/mask.
MASK_FOLDER = "mask"


@dataclass(frozen=True, slots=True)
class SemanticScore:
    """The counts of a whole folder. names: of the pictures or videos. notes: what was left out or looked odd."""

    metric: MeanIoU | VideoSemanticQuality
    names: tuple[str, ...]
    num_frames: int
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> MeanIoU:
        """The counts of all pixels, with the figures of classes."""
        return self.metric if isinstance(self.metric, MeanIoU) else self.metric.pixels

    def compute(self) -> dict[str, float]:
        """The figures of the metric; for videos those of `MeanIoU` follow."""
        return {**self.metric.compute(), **{k: v for k, v in self.pixels.compute().items() if k != "miou"}}


class ClassMaps:
    """Reads class maps as one label space and remembers values that are no class.

    ignore_index: the one true value that does not count (None: all that are no class). reduction: "truth" when its maps
    hold 0 = other, 1 to K the classes (ADE20K), "both" when the predictions do, too.
    """

    def __init__(self, num_classes: int, *, ignore_index: int | None = None, reduction: str | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: give the number of classes, at least 1")
        if reduction not in (None, *REDUCTIONS):
            raise ValueError(f"reduction is {reduction!r}: expected None, {' or '.join(map(repr, REDUCTIONS))}")
        if reduction and ignore_index not in (None, ADE_VOID):
            raise ValueError(f"ignore_index is {ignore_index}: reduced maps have void {ADE_OTHER} and {ADE_VOID}")
        self.num_classes, self.reduction = num_classes, reduction
        # Reduced maps have -1 for void, which is no class in any case.
        self.ignore_index = None if reduction else ignore_index
        self._strays: dict[tuple[str, int], tuple[int, set[str]]] = defaultdict(lambda: (0, set()))

    def read(self, truth: Path, prediction: Path, name: str) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """The prediction and the truth (H, W), classes from 0. name: of the sample. Refuses unequal sizes."""
        maps = {"prediction": read_label_png(prediction), "truth": read_label_png(truth)}
        if maps["prediction"].shape != maps["truth"].shape:
            sizes = {side: " x ".join(map(str, values.shape)) for side, values in maps.items()}
            raise ValueError(
                f"{prediction} is {sizes['prediction']}, {truth} is {sizes['truth']} (height x width): resize the "
                "prediction without interpolation"
            )
        self._remember("truth", maps["truth"], name)
        self._remember("prediction", maps["prediction"], name, maps["truth"])
        if self.reduction:
            maps["truth"] = reduce_labels(maps["truth"])
        if self.reduction == "both":
            maps["prediction"] = reduce_labels(maps["prediction"])
        return maps["prediction"], maps["truth"]

    @property
    def notes(self) -> list[str]:
        """One sentence per value that is no class, and what it counts as."""
        lines = []
        for (side, value), (pixels, names) in sorted(self._strays.items()):
            effect = self._effect(side)
            where = f"{pixels} pixels in {len(names)} files ({listed(sorted(names))})"
            lines.append(f"{side}: {where} have the value {value}, which is none of the classes: {effect}")
        return lines

    def _effect(self, side: str) -> str:
        if side == "prediction":
            return "they count as misses"
        return "they are left out" if self.ignore_index is None else "what is predicted there counts as wrong"

    def _remember(
        self, side: str, values: NDArray[np.integer], name: str, truth: NDArray[np.integer] | None = None
    ) -> None:
        """truth: where it is no class, nobody asks for the prediction."""
        first, last = self._range(side)
        if first <= int(values.min(initial=first)) and int(values.max(initial=last)) <= last:
            return
        if truth is not None:
            lowest, highest = self._range("truth")
            values = values[(truth >= lowest) & (truth <= highest)]
        found, counts = np.unique(values, return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            if not first <= value <= last and not (side == "truth" and self._is_void(value)):
                pixels, names = self._strays[side, value]
                self._strays[side, value] = pixels + count, names | {name}

    def _range(self, side: str) -> tuple[int, int]:
        """The first and the last class as stored."""
        is_reduced = self.reduction == "both" or (self.reduction == "truth" and side == "truth")
        return (1, self.num_classes) if is_reduced else (0, self.num_classes - 1)

    def _is_void(self, value: int) -> bool:
        if self.reduction:
            return value in (ADE_OTHER, ADE_VOID)
        return value == self.ignore_index or (self.ignore_index is None and value in USUAL_VOIDS)


def score_semantic_folders(
    truth: str | Path,
    prediction: str | Path,
    num_classes: int,
    *,
    ignore_index: int | None = None,
    reduction: str | None = None,
    progress: Progress = iter,
) -> SemanticScore:
    """Score `prediction/NAME.png` against `truth/NAME.png`, in deeper folders, too; classes count from 0.

    ignore_index, reduction: see `ClassMaps`. progress: wraps the loop over the pictures, e.g. `tqdm`. Raises ValueError
    for missing predictions before the first picture is read; superfluous ones are noted.
    """
    maps = ClassMaps(num_classes, ignore_index=ignore_index, reduction=reduction)
    expected = "a folder of PNGs with one class per pixel"
    truth, prediction = (
        require_folder(Path(path), name, expected) for path, name in ((truth, "truth"), (prediction, "prediction"))
    )
    pairs, notes = pair_pngs(truth, prediction, recursive=True)
    metric = MeanIoU(num_classes, ignore_index=maps.ignore_index)
    for name in progress(pairs):
        metric.update_maps(*maps.read(*pairs[name], name), name=name)
    return SemanticScore(metric, tuple(pairs), len(pairs), (*notes, *maps.notes))


def score_video_semantic_folders(
    truth: str | Path,
    prediction: str | Path,
    num_classes: int,
    *,
    videos: Sequence[str] | None = None,
    clip_lengths: Sequence[int] = CLIP_LENGTHS,
    ignore_index: int | None = None,
    reduction: str | None = None,
    progress: Progress = iter,
) -> SemanticScore:
    """Score `prediction/VIDEO/FRAME.png` against `truth/VIDEO/FRAME.png` or VSPW's `truth/VIDEO/mask/FRAME.png`.

    videos: names of those to score, None: all of `truth`. The truth says which frames there are. Otherwise as
    `score_semantic_folders`; with reduced maps, the values 0 and 255 are one label for the consistency.
    """
    maps = ClassMaps(num_classes, ignore_index=ignore_index, reduction=reduction)
    folders, notes = pair_videos(Path(truth), Path(prediction), videos)
    frames = {}
    for video, (true_folder, predicted_folder) in folders.items():
        frames[video], extra = pair_pngs(true_folder, predicted_folder)
        notes += extra
    metric = VideoSemanticQuality(num_classes, clip_lengths=clip_lengths, ignore_index=maps.ignore_index)
    for video in progress(frames):
        pairs = [maps.read(*paths, f"{video}/{name}") for name, paths in frames[video].items()]
        sizes = {true.shape for _, true in pairs}
        if len(sizes) > 1:
            raise ValueError(f"{folders[video][0]}: its frames have the sizes {sorted(sizes)}: they must be equal")
        predicted, true = (np.stack(side) for side in zip(*pairs, strict=True))
        metric.update_maps(predicted, true, name=video)
    total = sum(map(len, frames.values()))
    return SemanticScore(metric, tuple(frames), total, (*notes, *maps.notes, *metric.skipped))


def pair_pngs(
    truth: Path, prediction: Path, *, recursive: bool = False
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """By name: the PNG of the truth and of the prediction; and notes of superfluous ones. ValueError: some lack."""
    true, predicted = pngs_of(truth, recursive=recursive), pngs_of(prediction, recursive=recursive)
    if not true:
        raise ValueError(f"{truth} is {describe_folder(truth)}: expected PNGs with one number per pixel")
    missing = [name for name in true if name not in predicted]
    if missing:
        raise ValueError(
            f"{prediction} is {describe_folder(prediction)}: it lacks {len(missing)} of {len(true)} files, "
            f"{listed(f'{name}.png' for name in missing)}; names are those in {truth}"
        )
    extra = [name for name in predicted if name not in true]
    notes = [f"{prediction}: {len(extra)} files left out, there is no truth for {listed(extra)}"] if extra else []
    return {name: (true[name], predicted[name]) for name in true}, notes


def pair_videos(
    truth: Path, prediction: Path, videos: Sequence[str] | None = None
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """By name: the folder of a video's truth and of its prediction; and notes of superfluous ones.

    videos: their names, None: all folders of `truth`. PNGs may lie in VIDEO or in VIDEO/mask.
    """
    for path, name in ((truth, "truth"), (prediction, "prediction")):
        require_folder(path, name, "one folder of PNGs per video")
    names = sorted(path.name for path in truth.iterdir() if path.is_dir()) if videos is None else list(videos)
    if not names:
        raise ValueError(f"truth {truth} is {describe_folder(truth)}: expected one folder of PNGs per video")
    for path in (truth, prediction):
        missing = [name for name in names if not (path / name).is_dir()]
        if missing:
            raise ValueError(
                f"{path} is {describe_folder(path)}: it lacks {len(missing)} of {len(names)} videos, {listed(missing)}"
            )
    extra = [path.name for path in sorted(prediction.iterdir()) if path.is_dir() and path.name not in names]
    notes = [f"{prediction}: {len(extra)} videos left out, {listed(extra)}"] if extra else []
    return {name: (_frames_folder(truth / name), _frames_folder(prediction / name)) for name in names}, notes


def _frames_folder(folder: Path) -> Path:
    return folder / MASK_FOLDER if (folder / MASK_FOLDER).is_dir() else folder
