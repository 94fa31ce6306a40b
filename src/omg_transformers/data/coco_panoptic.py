"""Reader of the COCO panoptic layout: pictures, one JSON, and a folder of PNGs whose colours are segment ids."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.frames import frame_size
from omg_transformers.data.label_mapping import classes_of_categories
from omg_transformers.data.regions import encode_region, merge_stuff
from omg_transformers.data.sources import OnError, SampleError, check_index, check_on_error, iterate
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.labels import LabelSpace

PANOPTIC_TASKS = ("semantic", "instance", "panoptic", "interactive")


def read_coco_panoptic(
    root: str | Path,
    split: str = "train2017",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
) -> CocoPanopticSource:
    """Samples of `root/split/*.jpg`, `root/annotations/panoptic_<split>.json` and the PNG folder beside that file.

    label_space: default the built-in "coco_panoptic". Categories find their class by name, synonym or supercategory,
    so a coarser space ("coco_supercategory") merges while reading. Raises ValueError for a category without a class.
    on_error: what a plain walk does with a bad sample; "skip" lists it in `skipped`.
    """
    if label_space is None:
        from omg_transformers.labels import builtin_label_space

        label_space = builtin_label_space("coco_panoptic")
    return CocoPanopticSource(Path(root), split, label_space, on_error)


class CocoPanopticSource:
    """Pictures of one split with things, stuff, crowds and void; see `read_coco_panoptic`."""

    tasks = PANOPTIC_TASKS

    def __init__(self, root: Path, split: str, label_space: LabelSpace, on_error: OnError = "raise") -> None:
        check_on_error(on_error)
        self.label_space, self.on_error = label_space, on_error
        self.skipped: list[str] = []
        self.picture_folder = root / split
        self.json_path = root / "annotations" / f"panoptic_{split}.json"
        self.png_folder = root / "annotations" / f"panoptic_{split}"
        content = _read_json(self.json_path)
        self._class_of = classes_of_categories(content["categories"], label_space, where=str(self.json_path))
        self._pictures = {picture["id"]: picture for picture in content["images"]}
        self._annotations: list[dict[str, Any]] = content["annotations"]
        # A few kilobytes per picture: the PNG (the slowest part to read) is opened once.
        self._cached_annotation = lru_cache(maxsize=4096)(self._read_annotation)

    @property
    def num_samples(self) -> int:
        """Number of annotated pictures."""
        return len(self._annotations)

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self, on_error=self.on_error, skipped=self.skipped)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_cached_annotation"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cached_annotation = lru_cache(maxsize=4096)(self._read_annotation)

    def sample(self, index: int) -> Sample:
        """Picture number `index` in the order of the JSON's annotations; the picture stays encoded."""
        check_index(index, self.num_samples, str(self.json_path))
        picture = self._picture_of(self._annotations[index])
        return Sample(
            sample_id=str(picture["id"]),
            frames=(self.picture_folder / picture["file_name"],),
            annotation=self._cached_annotation(index),
            label_space=self.label_space,
            tasks=self.tasks,
        )

    def _picture_of(self, record: dict[str, Any]) -> dict[str, Any]:
        picture: dict[str, Any] | None = self._pictures.get(record["image_id"])
        if picture is None:
            raise SampleError(
                f"{self.json_path}: the annotation {record['file_name']} belongs to picture {record['image_id']}, "
                "which `images` does not list"
            )
        return picture

    def _read_annotation(self, index: int) -> Annotation:
        record = self._annotations[index]
        picture = self._picture_of(record)
        size = (int(picture["height"]), int(picture["width"]))
        path = self.picture_folder / picture["file_name"]
        found = frame_size(path, name=f"picture {picture['id']}")
        if found != size:
            raise SampleError(f"{path} is {found[0]} high and {found[1]} wide, {self.json_path} says {size}")
        id_map = read_id_png(self.png_folder / record["file_name"], size)
        segments = [self._segment(info, id_map, record["file_name"]) for info in record["segments_info"]]
        void = id_map == 0
        self._check_complete(id_map, void, record)
        return Annotation(
            size=size,
            is_thing=tuple(self.label_space.is_thing),
            segments=merge_stuff(segments, tuple(self.label_space.is_thing)),
            void=(encode_region(void),),
        )

    def _segment(self, info: dict[str, Any], id_map: np.ndarray[Any, Any], file_name: str) -> Segment:
        category = info["category_id"]
        if category not in self._class_of:
            raise SampleError(
                f"{self.json_path}: segment {info['id']} of {file_name} has category {category}, "
                "which `categories` does not list"
            )
        rle = encode_region(id_map == info["id"])
        if rle is None:
            raise SampleError(
                f"{self.png_folder / file_name}: segment {info['id']} is in {self.json_path.name} but has no pixel"
            )
        return Segment(self._class_of[category], (rle,), int(info["id"]), bool(info.get("iscrowd", 0)))

    def _check_complete(self, id_map: np.ndarray[Any, Any], void: np.ndarray[Any, Any], record: dict[str, Any]) -> None:
        """Every pixel must belong to a listed segment or to void."""
        listed = {info["id"] for info in record["segments_info"]}
        if len(listed) != len(record["segments_info"]):
            raise SampleError(f"{self.json_path}: {record['file_name']} lists a segment id twice")
        strangers = sorted(set(np.unique(id_map[~void]).tolist()) - listed) if not void.all() else []
        if strangers:
            raise SampleError(
                f"{self.png_folder / record['file_name']} holds the segment ids {strangers[:5]}, "
                f"which {self.json_path.name} does not list for it"
            )


def read_id_png(path: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Segment ids (H, W) int32 in Fortran order: R + 256 G + 65536 B. Raises SampleError naming the file."""
    try:
        with Image.open(path) as picture:
            colors = np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise SampleError(f"{path} does not exist: put the panoptic PNG of the annotation there") from error
    except (OSError, SyntaxError) as error:
        raise SampleError(f"{path} is not a readable PNG ({error})") from error
    if colors.shape[:2] != size:
        raise SampleError(f"{path} is {colors.shape[0]} high and {colors.shape[1]} wide, its picture {size}")
    red, green, blue = (np.asfortranarray(colors[..., channel]).astype(np.int32, order="F") for channel in range(3))
    return red + (green << 8) + (blue << 16)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist: expected the COCO layout <root>/annotations/panoptic_<split>.json"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): the download may be incomplete") from error
    missing = {"images", "annotations", "categories"} - set(content)
    if missing:
        raise ValueError(f"{path} has no {sorted(missing)}: it is no COCO panoptic file")
    return dict(content)
