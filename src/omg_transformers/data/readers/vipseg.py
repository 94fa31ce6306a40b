"""Reader of VIPSeg: videos with things, stuff and void in every frame, as 16-bit PNGs or as coloured ones with JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers.builtin_classes import known_classes
from omg_transformers.data.readers.classes import DatasetClasses, classes_of_space
from omg_transformers.data.readers.coco_panoptic import read_id_png
from omg_transformers.data.readers.json_files import read_object
from omg_transformers.data.readers.json_rows import check_rows
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.readers.videos import (
    FrameTruth,
    Video,
    VideoSource,
    first_line,
    names_in,
    pair_frames,
    read_ids,
    regions_of,
    values_of,
    void_of,
)
from omg_transformers.data.sources import SampleError
from omg_transformers.formats.atomic_file import read_json
from omg_transformers.labels import builtin_label_space
from omg_transformers.metrics.label_png import listed
from omg_transformers.metrics.vipseg_files import CATEGORY_FILE, FIRST_THING, RAW_FOLDER, THING_STEP, TRUTH_FOLDER

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

PICTURE_FOLDERS = ("imgs", "images")
JSON_START = "panoptic_gt_VIPSeg"
ALL = "all"


def read_vipseg(
    root: str | Path, split: str = "train", *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> VideoSource:
    """Videos `root/imgs/VIDEO/*.jpg` (or `images`) with `root/panomasks/VIDEO/*.png`, listed in `root/SPLIT.txt`.

    In these PNGs 0 is void, stuff is category + 1, a thing (category + 1) * 100 + instance. Without the list:
    `root/panoptic_gt_VIPSeg_SPLIT.json` with `root/panomasksRGB`, which VIPSeg's converter writes. "all": every video.
    label_space: default the classes of `panoVIPSeg_categories.json`, or the built-in "vipseg".
    """
    root = Path(root)
    pictures = next((root / name for name in PICTURE_FOLDERS if (root / name).is_dir()), root / PICTURE_FOLDERS[0])
    list_path, json_path = (
        root / f"{split}.txt",
        root / (f"{JSON_START}_{split}.json" if split != ALL else f"{JSON_START}.json"),
    )
    if list_path.is_file() or not json_path.is_file():
        names = _videos(root) if split == ALL else names_in(list_path)
        return RawSource(root, pictures, names, label_space, on_error)
    return ColoredSource(json_path, pictures, root / TRUTH_FOLDER, label_space, on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Lists of videos beside `panomasks`, and JSON files beside `panomasksRGB`; "all" without either."""
    if not any((root / name).is_dir() for name in PICTURE_FOLDERS):
        return ()
    found: list[str] = []
    videos = _videos(root)
    if videos:
        found += [path.stem for path in sorted(root.glob("*.txt")) if first_line(path) in videos]
    if (root / TRUTH_FOLDER).is_dir():
        jsons = [path.stem.removeprefix(JSON_START).strip("_") or ALL for path in root.glob(f"{JSON_START}*.json")]
        found += [name for name in sorted(jsons) if name not in found]
    return tuple(found) or ((ALL,) if videos else ())


class RawSource(VideoSource):
    """Videos with 16-bit `panomasks`; see `read_vipseg`."""

    parts = ("classes", "instances", "scene", "tracks")

    def __init__(
        self,
        root: Path,
        pictures: Path,
        names: tuple[str, ...],
        label_space: LabelSpace | None,
        on_error: OnError,
    ) -> None:
        folder = root / RAW_FOLDER
        classes = _raw_classes(root, label_space)
        self._class_of = classes.class_of
        videos = [pair_frames(name, pictures / name, folder / name) for name in names]
        super().__init__(videos, classes.label_space, name=str(folder), on_error=on_error)

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """Things and stuff of one frame."""
        del video, position
        ids = read_ids(truth)
        values = [value for value in values_of(ids) if value]
        category_of = {value: (value if value < FIRST_THING else value // THING_STEP) - 1 for value in values}
        strangers = [value for value, category in category_of.items() if category not in self._class_of]
        if strangers:
            raise SampleError(
                f"{truth} holds the values {listed(strangers)}, whose categories are not in the list: in panomasks "
                "stuff is category + 1, a thing (category + 1) * 100 + instance, and 0 is void"
            )
        classes = {value: self._class_of[category] for value, category in category_of.items()}
        return FrameTruth((ids.shape[0], ids.shape[1]), regions_of(ids, classes), void_of(ids, 0))


class ColoredSource(VideoSource):
    """Videos with `panomasksRGB` and one JSON; see `read_vipseg`."""

    parts = ("classes", "instances", "scene", "tracks")

    def __init__(
        self, json_path: Path, pictures: Path, folder: Path, label_space: LabelSpace | None, on_error: OnError
    ) -> None:
        content = read_object(json_path, ("annotations", "categories"), title="VIPSeg")
        classes = _listed_classes(content["categories"], label_space, json_path)
        self._class_of = classes.class_of
        kinds = {"video_id": (int, str), "annotations": (list,)}
        annotations = check_rows(content["annotations"], kinds, where=json_path, noun="annotation")
        rows = {str(row["video_id"]): _frame_rows(row, json_path) for row in annotations}
        self._rows = {(video, stem): row for video, frames in rows.items() for stem, row in frames.items()}
        self._json_path = json_path
        videos = [_colored_video(name, pictures / name, folder / name, list(frames)) for name, frames in rows.items()]
        super().__init__(videos, classes.label_space, name=str(json_path), on_error=on_error)

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """Things and stuff of one frame."""
        size = self.size(video, position)
        ids = read_id_png(truth, size)
        infos = self._infos(video.name, truth)
        strangers = [value for value in values_of(ids) if value and value not in infos]
        if strangers:
            raise SampleError(f"{truth} holds the ids {listed(strangers)}, which {self._json_path.name} does not list")
        unknown = sorted({info["category_id"] for info in infos.values()} - set(self._class_of))
        if unknown:
            raise SampleError(
                f"{self._json_path}, {video.name}/{truth.name}: `categories` does not list {listed(unknown)}"
            )
        classes = {value: self._class_of[info["category_id"]] for value, info in infos.items()}
        crowds = {value for value, info in infos.items() if info.get("iscrowd")}
        return FrameTruth(size, regions_of(ids, classes, crowds), void_of(ids, 0))

    def _infos(self, video: str, truth: Path) -> dict[int, dict[str, Any]]:
        rows = self._rows[video, truth.stem]["segments_info"]
        try:
            check_rows(
                rows,
                {"id": (int,), "category_id": (int,)},
                where=f"{self._json_path}, {video}/{truth.name}",
                noun="segment",
            )
        except ValueError as error:
            raise SampleError(str(error)) from error
        return {info["id"]: info for info in rows}


def _raw_classes(root: Path, label_space: LabelSpace | None) -> DatasetClasses:
    path = root / CATEGORY_FILE
    if not path.is_file():
        return classes_of_space(builtin_label_space("vipseg"), label_space, where=root)
    return _listed_classes(read_json(path), label_space, path)


def _listed_classes(categories: Any, label_space: LabelSpace | None, where: Path) -> DatasetClasses:
    check_rows(categories, {"id": (int,), "name": (str,)}, where=where, noun="category")
    ids = [row["id"] for row in categories]
    return known_classes(categories, label_space, builtins=("vipseg",), name="vipseg_categories", where=where, used=ids)


def _videos(root: Path) -> tuple[str, ...]:
    return tuple(folder.name for folder in subfolders(root / RAW_FOLDER))


def _frame_rows(row: dict[str, Any], json_path: Path) -> dict[str, dict[str, Any]]:
    kinds = {"file_name": (str,), "segments_info": (list,)}
    frames = check_rows(row["annotations"], kinds, where=f"{json_path}, video {row['video_id']}", noun="frame")
    return {Path(frame["file_name"]).stem: frame for frame in frames}


def _colored_video(name: str, pictures: Path, folder: Path, stems: list[str]) -> Video:
    """Only the frames that the JSON lists are annotated, whatever else lies in the folder."""
    video = pair_frames(name, pictures, folder)
    truths = tuple(truth if truth is not None and truth.stem in stems else None for truth in video.truths)
    known = {truth.stem for truth in truths if truth is not None}
    lost = [stem for stem in stems if stem not in known]
    problem = f"{folder} lacks PNGs of {len(lost)} listed frames or their pictures: {listed(lost)}" if lost else ""
    return Video(name, video.frames, truths, video.problem or problem)


LAYOUT = Layout("vipseg", "VIPSeg", find_splits, read_vipseg)
