"""VPQ and STQ of predictions on disk: VIPSeg's panoptic PNGs, with their JSON file or as the data set stores them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.metrics.label_png import describe_folder, listed, pngs_of, read_label_png, require_folder
from omg_transformers.metrics.panoptic_files import (
    check_categories,
    check_same_ids,
    read_annotations,
    read_panoptic_png,
    segment_classes,
)
from omg_transformers.metrics.segmentation_tracking import SegmentationTrackingQuality
from omg_transformers.metrics.video_panoptic import WINDOWS, TubeOverlaps, VideoPanopticQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

RAW_FOLDER, CATEGORY_FILE = "panomasks", "panoVIPSeg_categories.json"
TRUTH_FOLDER, PREDICTION_FOLDER, PREDICTION_FILE = "panomasksRGB", "pan_pred", "pred.json"
# In panomasks, stuff is category + 1, a thing (category + 1) * 100 + instance.
FIRST_THING, THING_STEP = 125, 100


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame on disk. segments: its `segments_info`, None for panomasks. where: for errors."""

    name: str
    path: Path
    where: str
    segments: Sequence[dict[str, Any]] | None = None


@dataclass(slots=True)
class Tubes:
    """The class of each id of a video, known after its frames were read, and the ids of its crowds."""

    classes: dict[int, int] = field(default_factory=dict)
    crowds: list[int] = field(default_factory=list)

    def add(self, classes: Mapping[int, int], where: str) -> None:
        """Add the ids of one frame; refuses an id that had another class before."""
        for identity, label in classes.items():
            if self.classes.setdefault(identity, label) != label:
                raise ValueError(f"{where}: id {identity} has another category than in the video's frames before")


@dataclass(frozen=True, slots=True)
class VideoPanopticScore:
    """The counts of all videos; class i is `category_ids[i]`. notes: what was left out or looked odd."""

    quality: VideoPanopticQuality
    tracking: SegmentationTrackingQuality
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    video_names: tuple[str, ...]
    num_frames: int
    notes: tuple[str, ...] = ()

    def compute(self) -> dict[str, float]:
        """`vpq`, `vpq_things`, `vpq_stuff`, then `stq`, `aq`, `sq`, then the figures of each window."""
        windows = self.quality.compute()
        means = {name: windows.pop(name) for name in ("vpq", "vpq_things", "vpq_stuff")}
        return {**means, **self.tracking.compute(), **windows}

    def per_class(self) -> dict[str, NDArray[Any]]:
        """`vpq`, `vpq_k` for each window k, `stq_iou`, `stq_aq`, then the other columns of both metrics; (K,) each."""
        windows = self.quality.per_class()
        means = {name: values for name, values in windows.items() if name.startswith("vpq")}
        tubes = {f"stq_{name}": values for name, values in self.tracking.per_class().items()}
        return {**means, **tubes, **{name: values for name, values in windows.items() if name not in means}}


class VideoPanopticFiles:
    """Truth and predictions of videos, checked against each other; frames are read one by one.

    truth, prediction: VIPSeg's JSON file (videos, annotations, categories; of predictions annotations suffice) with its
    folder of PNGs (R + 256 G + 65536 B), by default panomasksRGB beside the truth's and pan_pred beside the
    prediction's; or a folder VIDEO/FRAME.png of 16-bit panomasks. categories: file of the categories where the truth
    has no JSON, default panoVIPSeg_categories.json in its folder or the one above. videos: names, None for all.
    """

    def __init__(
        self,
        truth: Path | str,
        prediction: Path | str,
        gt_folder: Path | str | None = None,
        pred_folder: Path | str | None = None,
        *,
        categories: Path | str | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        truth, prediction = Path(truth), _prediction_path(Path(prediction))
        self.notes: list[str] = []
        if truth.is_dir():
            truth = truth / RAW_FOLDER if (truth / RAW_FOLDER).is_dir() else truth
            self.categories = _read_category_file(truth, categories)
            self.truths = _raw_videos(truth, "truth")
        else:
            content = read_annotations(truth)
            self.categories = check_categories(content.get("categories"), truth)
            folder = Path(gt_folder) if gt_folder is not None else truth.parent / TRUTH_FOLDER
            self.truths = _annotated_videos(content, truth, require_folder(folder, "gt_folder", "one folder per video"))
        self.labels = {category["id"]: index for index, category in enumerate(self.categories)}
        self.truths = _chosen(self.truths, videos, truth)
        if prediction.is_dir():
            self.predictions = _raw_videos(prediction, "prediction")
        else:
            folder = Path(pred_folder) if pred_folder is not None else prediction.parent / PREDICTION_FOLDER
            require_folder(folder, "pred_folder", "one folder of PNGs per video")
            self.predictions = _annotated_videos(read_annotations(prediction), prediction, folder, self.truths)
        self._pair(prediction)

    @property
    def num_frames(self) -> int:
        """Frames of all videos together."""
        return sum(map(len, self.truths.values()))

    def count(self, video: str, metrics: Iterable[VideoPanopticQuality | SegmentationTrackingQuality]) -> None:
        """Read one video, frame by frame, and count it."""
        overlaps, true, predicted = TubeOverlaps(), Tubes(), Tubes()
        for mine, theirs in zip(self.predictions[video], self.truths[video], strict=True):
            found = self._read(mine, predicted, is_truth=False)
            actual = self._read(theirs, true, is_truth=True)
            if found.shape != actual.shape:
                raise ValueError(
                    f"{mine.path} is {found.shape[0]} x {found.shape[1]}, {theirs.path} is {actual.shape[0]} x "
                    f"{actual.shape[1]} (height x width): resize the prediction"
                )
            overlaps.add(found, actual)
        for metric in metrics:
            metric.update_tubes(overlaps, predicted.classes, true.classes, crowd_ids=true.crowds)

    def _read(self, frame: VideoFrame, tubes: Tubes, *, is_truth: bool) -> NDArray[np.integer]:
        if frame.segments is None:
            ids = read_label_png(frame.path)
            tubes.add(self._raw_classes(ids, frame), frame.where)
            return ids
        ids = read_panoptic_png(frame.path)
        classes = segment_classes(frame.segments, self.labels, frame.where)
        note = check_same_ids(_values(ids), classes, frame.where, is_truth=is_truth)
        if note:
            self.notes.append(note)
        tubes.add(classes, frame.where)
        crowds = [segment["id"] for segment in frame.segments if segment.get("iscrowd")]
        tubes.crowds += [crowd for crowd in crowds if crowd not in tubes.crowds]
        return ids

    def _raw_classes(self, ids: NDArray[np.integer], frame: VideoFrame) -> dict[int, int]:
        classes = {}
        for value in _values(ids):
            category = (value if value < FIRST_THING else value // THING_STEP) - 1
            if value and category not in self.labels:
                raise ValueError(f"{frame.where}: value {value} is category {category}, which is not in the list")
            if value:
                classes[value] = self.labels[category]
        return classes

    def _pair(self, prediction: Path) -> None:
        missing = [video for video in self.truths if video not in self.predictions]
        if missing:
            raise ValueError(f"{prediction} lacks {len(missing)} of {len(self.truths)} videos, {listed(missing)}")
        extra = [video for video in self.predictions if video not in self.truths]
        if extra:
            self.notes.append(f"{prediction}: {len(extra)} videos left out, {listed(extra)}")
        extra_frames: list[str] = []
        for video, frames in self.truths.items():
            found = {frame.name: frame for frame in self.predictions[video]}
            wanted = [frame.name for frame in frames]
            absent = [name for name in wanted if name not in found]
            if absent:
                raise ValueError(
                    f"{prediction}, video {video}: lacks {len(absent)} of {len(wanted)} frames, {listed(absent)}; "
                    f"it has {listed(found)}"
                )
            extra_frames += [f"{video}/{name}" for name in found if name not in set(wanted)]
            self.predictions[video] = [found[name] for name in wanted]
            for frame in (*frames, *self.predictions[video]):
                if not frame.path.is_file():
                    raise ValueError(f"{frame.where}: there is no {frame.path}")
        if extra_frames:
            self.notes.append(f"{prediction}: {len(extra_frames)} frames left out, {listed(extra_frames)}")


def score_vipseg_files(
    truth: Path | str,
    prediction: Path | str,
    gt_folder: Path | str | None = None,
    pred_folder: Path | str | None = None,
    *,
    categories: Path | str | None = None,
    videos: Sequence[str] | None = None,
    windows: Sequence[int] = WINDOWS,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> VideoPanopticScore:
    """Score videos as VIPSeg's programs do, VPQ for all windows and STQ; files: see `VideoPanopticFiles`.

    windows: numbers of frames; VIPSeg's program means over 1, 2, 4, 6 and 8. progress: wraps the loop over the videos.
    Unlike that program, STQ takes no first segment of a video for a crowd. Videos without a window are noted.
    """
    files = VideoPanopticFiles(truth, prediction, gt_folder, pred_folder, categories=categories, videos=videos)
    is_thing = tuple(bool(category["isthing"]) for category in files.categories)
    quality = VideoPanopticQuality(len(is_thing), is_thing, windows=windows)
    tracking = SegmentationTrackingQuality(len(is_thing), is_thing)
    for video in progress(files.truths):
        files.count(video, (quality, tracking))
    for window in windows:
        short = [video for video, frames in files.truths.items() if len(frames) < window]
        if short:
            files.notes.append(f"{len(short)} videos have fewer than {window} frames: no such window, {listed(short)}")
    names = tuple(str(category.get("name", category["id"])) for category in files.categories)
    return VideoPanopticScore(
        quality, tracking, tuple(files.labels), names, tuple(files.truths), files.num_frames, tuple(files.notes)
    )


def _prediction_path(path: Path) -> Path:
    """The JSON file of a folder that VIPSeg's programs would take, else the path as it is."""
    return path / PREDICTION_FILE if (path / PREDICTION_FILE).is_file() else path


def _raw_videos(folder: Path, name: str) -> dict[str, list[VideoFrame]]:
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    videos = {
        path.name: [VideoFrame(title, file, str(file)) for title, file in pngs_of(path).items()] for path in folders
    }
    empty = [video for video, frames in videos.items() if not frames]
    if empty or not videos:
        place = folder / empty[0] if empty else folder
        raise ValueError(
            f"{name} {place} is {describe_folder(place)}: expected VIPSeg's JSON file, or a folder VIDEO/FRAME.png of "
            "16-bit panomasks"
        )
    return videos


def _annotated_videos(
    content: dict[str, Any], source: Path, folder: Path, truths: Mapping[str, Sequence[VideoFrame]] | None = None
) -> dict[str, list[VideoFrame]]:
    """truths: frames whose PNGs are asked for, by which the files of predictions are named, as VIPSeg's programs do."""
    videos: dict[str, list[VideoFrame]] = {}
    for record in content["annotations"]:
        video, annotations = str(record.get("video_id")), record.get("annotations")
        if "video_id" not in record or not isinstance(annotations, list):
            raise ValueError(f"{source}: an annotation has no video_id or no list `annotations`: {str(record)[:80]}")
        if video in videos:
            raise ValueError(f"{source}: video_id {video} occurs twice: keep one annotation per video")
        asked = [frame.path.name for frame in (truths or {}).get(video, ())]
        videos[video] = list(_annotated_frames(annotations, f"{source}, video {video}", folder / video, asked))
    return videos


def _annotated_frames(
    annotations: Sequence[dict[str, Any]], where: str, folder: Path, asked: Sequence[str]
) -> Iterator[VideoFrame]:
    by_stem = {Path(name).stem: name for name in asked}
    seen: set[str] = set()
    for index, row in enumerate(annotations):
        name = row.get("file_name") or row.get("image_id")
        if name is None and len(annotations) == len(asked):
            name = asked[index]  # VIPSeg's programs go by the order alone
        if name is None or not isinstance(row.get("segments_info"), list):
            raise ValueError(f"{where}: frame {index} has no file_name or no list segments_info")
        stem = Path(str(name)).stem
        if stem in seen:
            raise ValueError(f"{where}: frame {stem} occurs twice: keep one annotation per frame")
        seen.add(stem)
        yield VideoFrame(
            stem, folder / by_stem.get(stem, f"{stem}.png"), f"{where}, frame {stem}", row["segments_info"]
        )


def _chosen(
    truths: dict[str, list[VideoFrame]], videos: Sequence[str] | None, source: Path
) -> dict[str, list[VideoFrame]]:
    if videos is None:
        chosen = truths
    else:
        unknown = [video for video in videos if video not in truths]
        if unknown:
            raise ValueError(f"{source} has no truth for {len(unknown)} of {len(videos)} videos, {listed(unknown)}")
        chosen = {video: truths[video] for video in videos}
    if not any(chosen.values()):
        raise ValueError(f"{source} has no annotated video: there is nothing to score")
    return {video: frames for video, frames in chosen.items() if frames}


def _read_category_file(folder: Path, path: Path | str | None) -> list[dict[str, Any]]:
    places = [folder / CATEGORY_FILE, folder.parent / CATEGORY_FILE] if path is None else [Path(path)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        wanted = " or ".join(map(str, places))
        raise ValueError(f"there is no {wanted}: panomasks need the list of categories (id, name, isthing)")
    try:
        return check_categories(json.loads(file.read_bytes()), file)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def _values(ids: NDArray[np.integer]) -> list[int]:
    """The values that occur. Of runs of pixels: sorting all of a frame takes thirty times as long."""
    flat = ids.ravel()
    is_first = np.ones(len(flat), dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=is_first[1:])
    return np.unique(flat[is_first]).tolist()
