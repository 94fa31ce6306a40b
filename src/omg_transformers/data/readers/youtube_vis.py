"""Reader of YouTube-VIS 2019 and 2021, OVIS and others in their form: one JSON with a mask per object and frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pycocotools import mask as coco_mask

from omg_transformers.data.readers.builtin_classes import known_classes
from omg_transformers.data.readers.json_files import mentions, read_object
from omg_transformers.data.readers.json_rows import check_rows
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_coco
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.readers.videos import FrameTruth, Region, Video, VideoSource
from omg_transformers.data.sources import SampleError
from omg_transformers.metrics.label_png import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

PICTURES = "JPEGImages"
_MOST_FILES = 100
Incomplete = Literal["mark", "leave_out", "trust"]


def read_youtube_vis(
    root: str | Path,
    split: str = "train",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    pictures: str | None = None,
    incomplete: Incomplete = "mark",
) -> YoutubeVisSource:
    """Videos of `root/SPLIT/instances.json`, `root/SPLIT.json` or `root/annotations/instances_SPLIT.json`.

    label_space: default the built-in "youtube_vis_2019" or "youtube_vis_2021" when the categories are the same, else
    the file's own. pictures: folder of the frames under `root`, by default `SPLIT/JPEGImages` or `SPLIT`. Masks may be
    RLE, polygons or null (the object is not there).
    incomplete: a video that says `"exhaustive": false` has objects that nobody annotated. "mark": no class is certain
    there, so that finding other objects is no mistake; "leave_out": no sample; "trust": treat it as complete.
    """
    if incomplete not in get_args(Incomplete):
        raise ValueError(f"incomplete is {incomplete!r}: expected one of {', '.join(map(repr, get_args(Incomplete)))}")
    root = Path(root)
    found = _files(root)
    if split not in found:
        raise FileNotFoundError(
            f"{root / split / 'instances.json'} does not exist, nor {root / f'{split}.json'}: expected YouTube-VIS's "
            f"file of the split there; found are {listed(found) or 'none'}"
        )
    folder = None if pictures is None else root / pictures
    return YoutubeVisSource(found[split], folder, split, label_space, on_error, incomplete=incomplete)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits whose JSON speaks of videos and segmentations."""
    return tuple(split for split, path in _files(root).items() if mentions(path, '"videos"', '"segmentations"'))


class YoutubeVisSource(VideoSource):
    """Videos with things, one by one, in every frame; see `read_youtube_vis`."""

    parts = ("classes", "instances", "tracks")

    def __init__(
        self,
        json_path: Path,
        pictures: Path | None,
        split: str,
        label_space: LabelSpace | None,
        on_error: OnError = "raise",
        *,
        incomplete: Incomplete = "mark",
    ) -> None:
        content = read_object(json_path, ("videos", "categories"), title="YouTube-VIS")
        kinds = {"id": (int, str), "height": (int,), "width": (int,), "file_names": (list,)}
        check_rows(content["videos"], kinds, where=json_path, noun="video")
        check_rows(content["categories"], {"id": (int,), "name": (str,)}, where=json_path, noun="category")
        self._tracks = _tracks_by_video(content, json_path)
        used = {track["category_id"] for tracks in self._tracks.values() for track in tracks}
        unknown = used - {row["id"] for row in content["categories"]}
        if unknown:
            raise ValueError(f"{json_path}: annotations have the categories {listed(unknown)}, which are not listed")
        classes = known_classes(
            content["categories"],
            label_space,
            builtins=("youtube_vis_2019", "youtube_vis_2021"),
            name=f"{json_path.parent.parent.name or 'video'}_categories",
            where=json_path,
            used=used,
        )
        self._class_of = classes.class_of
        wanted = [row for row in content["videos"] if incomplete != "leave_out" or row.get("exhaustive", True)]
        self._rows = {_name_of(row, json_path): row for row in wanted}
        if pictures is None:
            pictures = _picture_folder(json_path, split, wanted)
        self._is_trusted = incomplete == "trust"
        self._json_path = json_path
        videos = [_video(name, row, pictures, json_path) for name, row in self._rows.items()]
        super().__init__(videos, classes.label_space, name=str(json_path), on_error=on_error)

    def size(self, video: Video, position: int) -> tuple[int, int]:
        """As the file says, the same for all frames."""
        del position
        row = self._rows[video.name]
        return int(row["height"]), int(row["width"])

    def certain_classes(self, index: int) -> frozenset[int] | None:
        """None of them in a video that is not exhaustive."""
        row = self._rows[self.records[index].name]
        return None if self._is_trusted or row.get("exhaustive", True) else frozenset()

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """The objects of one frame."""
        size = self.size(video, position)
        regions: dict[int, Region] = {}
        for track in self._tracks.get(self._rows[video.name]["id"], ()):
            where = f"{truth}: annotation {track.get('id')} of video {video.name}"
            region = _region(track, position, len(video.frames), size, where)
            if region is not None:
                category_id = self._class_of[track["category_id"]]
                regions[int(track["id"])] = replace(region, category_id=category_id)
        return FrameTruth(size, regions, None)


def _files(root: Path) -> dict[str, Path]:
    """Files that may be of this form, by the split they would be."""
    found = {path.parent.name: path for path in sorted(root.glob("*/instances.json"))}
    loose = sorted(root.glob("*.json"))
    # Thousands of files are one per picture or video, as labelme or SA-V write them.
    loose = loose if len(loose) <= _MOST_FILES else []
    for path in [*loose, *sorted(root.glob("annotations/*.json"))]:
        stem = path.stem
        for start in ("annotations_", "instances_"):
            stem = stem.removeprefix(start)
        found.setdefault(stem, path)
    return found


def _tracks_by_video(content: dict[str, Any], json_path: Path) -> dict[Any, list[dict[str, Any]]]:
    if not content.get("annotations"):
        raise ValueError(
            f"{json_path} holds no annotations: the files of the validation and test splits come without them; they "
            "can be segmented, but not learnt from or judged"
        )
    kinds = {"id": (int,), "video_id": (int, str), "category_id": (int,), "segmentations": (list,)}
    known = {row["id"] for row in content["videos"]}
    tracks: dict[Any, list[dict[str, Any]]] = {}
    for row in check_rows(content["annotations"], kinds, where=json_path, noun="annotation"):
        if row["video_id"] not in known:
            raise ValueError(
                f"{json_path}: annotation {row['id']} belongs to video {row['video_id']}, which `videos` does not list"
            )
        masks = [_compressed(mask) for mask in row["segmentations"]]
        tracks.setdefault(row["video_id"], []).append({**row, "segmentations": masks})
    for video, rows in tracks.items():
        twice = [number for number, count in Counter(row["id"] for row in rows).items() if count > 1]
        if twice:
            raise ValueError(f"{json_path}: the annotation ids {listed(sorted(twice))} occur twice in video {video}")
    return tracks


def _compressed(mask: Any) -> Any:
    """A list of runs as bytes, a tenth of the memory. Whatever looks wrong stays, for the error of its video."""
    counts, size = (mask.get("counts"), mask.get("size")) if isinstance(mask, dict) else (None, None)
    if not isinstance(counts, list) or not isinstance(size, list) or not _are_whole(size) or len(size) != 2:
        return mask
    if not _are_whole(counts) or sum(counts) != size[0] * size[1]:
        return mask
    return {"size": size, "counts": coco_mask.frPyObjects(mask, *size)["counts"]}


def _are_whole(values: list[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 2**31 for value in values)


def _name_of(row: dict[str, Any], json_path: Path) -> str:
    """The folder of the frames, as people call the video."""
    names = row["file_names"]
    if not names or not all(isinstance(name, str) for name in names) or min(row["height"], row["width"]) < 1:
        raise ValueError(
            f"{json_path}: video {row['id']} is {row['height']} high and {row['width']} wide and has the frames "
            f"{listed(names) or 'none'}: expected positive numbers and names of files"
        )
    return Path(names[0]).parent.as_posix() if "/" in names[0] else str(row["id"])


def _video(name: str, row: dict[str, Any], pictures: Path, json_path: Path) -> Video:
    frames = tuple(pictures / file for file in row["file_names"])
    length = row.get("length", len(frames))
    problem = ""
    if length != len(frames):
        problem = f"{json_path}: video {name} has length {length}, but {len(frames)} file_names: they must agree"
    return Video(name, frames, (json_path,) * len(frames), problem)


def _picture_folder(json_path: Path, split: str, rows: Sequence[dict[str, Any]]) -> Path:
    """The folder in which the first frame lies; where none does, the usual one, which errors then name."""
    root = json_path.parent if json_path.parent.name not in (split, "annotations") else json_path.parent.parent
    usual = [root / split / PICTURES, root / split, root / PICTURES]
    others = [folder / PICTURES for folder in subfolders(root)] + subfolders(root)
    first = next((row["file_names"][0] for row in rows if row["file_names"]), "")
    return next((folder for folder in [*usual, *others] if first and (folder / first).is_file()), usual[0])


def _region(track: dict[str, Any], position: int, num_frames: int, size: tuple[int, int], where: str) -> Region | None:
    masks = track["segmentations"]
    if not isinstance(masks, list) or len(masks) != num_frames:
        found = len(masks) if isinstance(masks, list) else masks
        raise SampleError(
            f"{where} has {found} segmentations for {num_frames} frames: expected one, or null, per frame"
        )
    if masks[position] in (None, []):
        return None
    rle = region_of_coco(masks[position], size, where=f"{where}, frame {position}")
    return None if rle is None else Region(-1, rle, bool(track.get("iscrowd", 0)))


LAYOUT = Layout("youtube_vis", "YouTube-VIS", find_splits, read_youtube_vis)
