"""Reader of the COCO panoptic layout: pictures, one JSON, and a folder of PNGs whose colours are segment ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.label_mapping import classes_of_categories
from omg_transformers.data.readers.builtin_classes import known_classes
from omg_transformers.data.readers.json_rows import check_rows
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.regions import encode_region, merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample


def read_coco_panoptic(
    root: str | Path,
    split: str = "train2017",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
) -> CocoPanopticSource:
    """Samples of `root/split/*.jpg`, `root/annotations/panoptic_<split>.json` and the PNG folder beside that file.

    label_space: default the built-in "coco_panoptic" where the categories are COCO's, else their own classes. In a
    given one categories find their class by name, synonym or supercategory, so a coarser space
    ("coco_supercategory") merges while reading. Raises ValueError for a category without a class.
    on_error: what a plain walk does with a bad sample; "skip" lists it in `skipped`.
    """
    return CocoPanopticSource(Path(root), split, label_space, on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits with `annotations/panoptic_<split>.json` and the folder of PNGs of the same name."""
    files = sorted(root.glob("annotations/panoptic_*.json"))
    return tuple(file.stem.removeprefix("panoptic_") for file in files if file.with_suffix("").is_dir())


class CocoPanopticSource(FileSource[dict[str, Any]]):
    """Pictures of one split with things, stuff, crowds and void; see `read_coco_panoptic`."""

    parts = ("classes", "instances", "scene")

    def __init__(self, root: Path, split: str, label_space: LabelSpace | None, on_error: OnError = "raise") -> None:
        self.picture_folder = root / split
        self.json_path = root / "annotations" / f"panoptic_{split}.json"
        self.png_folder = root / "annotations" / f"panoptic_{split}"
        content = _read_json(self.json_path)
        check_annotations(content["annotations"], self.json_path)
        kinds = {"id": (int, str), "file_name": (str,), "height": (int,), "width": (int,)}
        check_rows(content["images"], kinds, where=self.json_path, noun="picture")
        check_rows(content["categories"], {"id": (int,), "name": (str,)}, where=self.json_path, noun="category")
        if label_space is None:
            classes = known_classes(
                content["categories"],
                None,
                builtins=("coco_panoptic",),
                name=root.resolve().name,
                where=self.json_path,
                used=_used_categories(content["annotations"]),
            )
            label_space, self._class_of = classes.label_space, classes.class_of
        else:
            self._class_of = classes_of_categories(content["categories"], label_space, where=str(self.json_path))
        super().__init__(content["annotations"], label_space, name=str(self.json_path), on_error=on_error)
        self._pictures = {picture["id"]: picture for picture in content["images"]}

    def read(self, record: dict[str, Any]) -> Sample:
        """One annotated picture."""
        where = f"{self.json_path}, {record['file_name']}"
        try:
            check_rows(record["segments_info"], {"id": (int,), "category_id": (int,)}, where=where, noun="segment")
        except ValueError as error:
            raise SampleError(str(error)) from error
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
        is_thing = tuple(self.label_space.is_thing)
        annotation = Annotation(size, is_thing, merge_stuff(segments, is_thing), (encode_region(void),))
        return self.make_sample(str(picture["id"]), (path,), annotation)

    def _picture_of(self, record: dict[str, Any]) -> dict[str, Any]:
        picture: dict[str, Any] | None = self._pictures.get(record["image_id"])
        if picture is None:
            raise SampleError(
                f"{self.json_path}: the annotation {record['file_name']} belongs to picture {record['image_id']}, "
                "which `images` does not list"
            )
        return picture

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


def check_annotations(annotations: Any, path: Path) -> None:
    """Refuse, with ValueError, a list that is none of panoptic annotations; their segments are checked when read."""
    kinds = {"image_id": (int, str), "file_name": (str,), "segments_info": (list,)}
    check_rows(annotations, kinds, where=path, noun="annotation")


def _used_categories(annotations: Sequence[dict[str, Any]]) -> set[Any]:
    segments = (row for entry in annotations for row in entry["segments_info"] if isinstance(row, dict))
    return {number for row in segments if isinstance(number := row.get("category_id"), int)}


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


LAYOUT = Layout("coco_panoptic", "COCO panoptic", find_splits, read_coco_panoptic)
