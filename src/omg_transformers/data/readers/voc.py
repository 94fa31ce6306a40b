"""Reader of Pascal VOC's segmentation folders, as the VOCdevkit has them and as labelme exports them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.readers.class_maps import read_values
from omg_transformers.data.readers.classes import read_names
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.mask_classes import VOID, mask_classes
from omg_transformers.data.readers.pairs import Pair, check_size, files_by_name, listed_pairs, subfolders
from omg_transformers.data.sources import OnError, SampleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.data.readers.mask_classes import MaskClasses
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

VOC_NAMES = (
    "background", "aeroplane|airplane|plane", "bicycle|bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable|dining table|table", "dog", "horse", "motorbike|motorcycle", "person",
    "pottedplant|potted plant", "sheep", "sofa|couch", "train", "tvmonitor|tv monitor|tv|monitor",
)  # fmt: skip
_CLASS_FOLDERS = ("SegmentationClass", "SegmentationClassPNG")
_OBJECT_FOLDERS = ("SegmentationObject", "SegmentationObjectPNG")


def read_voc(
    root: str | Path,
    split: str = "all",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    background: bool | None = None,
) -> VocSource:
    """`JPEGImages`, `SegmentationClass`, `SegmentationObject`; 255 is void, a class without an object is a crowd.

    Pictures: those of `ImageSets/Segmentation/<split>.txt`, without lists all that have a class map. Without
    `SegmentationObject` a class is one segment. Names: `class_names.txt`, else VOC's 20. background: whether 0 is a
    stuff class, as VOC's own figures have it; False: these pixels are in no segment, and heads that need a class
    everywhere cannot learn from the set; None: True, unless `label_space` does not know it.
    """
    homes = dict(_splits(Path(root)))
    if split not in homes:
        known = f"found {', '.join(homes)}" if homes else "found none"
        raise ValueError(f"{root} has no split {split!r} ({known}): expected ImageSets/Segmentation/{split}.txt")
    home = homes[split]
    names = read_names(home)
    classes = mask_classes(
        names or dict(enumerate(VOC_NAMES)),
        label_space,
        name="voc" if names is None else home.resolve().name,
        where=home,
        background=background,
    )
    list_file = home / "ImageSets" / "Segmentation" / f"{split.rpartition('/')[2]}.txt"
    return VocSource(home, list_file if list_file.is_file() else None, classes, on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits by their lists, "all" without lists; those of a VOCdevkit with the year in front ("VOC2012/train")."""
    return tuple(split for split, _ in _splits(root))


class VocSource(FileSource[Pair]):
    """Pictures with classes and, where there are any, objects; see `read_voc`."""

    def __init__(self, home: Path, list_file: Path | None, classes: MaskClasses, on_error: OnError = "raise") -> None:
        self.table = classes.table
        maps = _first_folder(home, _CLASS_FOLDERS)
        assert maps is not None
        self.object_folder = _first_folder(home, _OBJECT_FOLDERS)
        found = files_by_name(maps, ".png")
        names = list(found) if list_file is None else list_file.read_text(encoding="utf-8").split()
        place = home / "JPEGImages"
        pairs = listed_pairs(names, files_by_name(place), place, maps)
        self.parts = ("classes",)
        if self.object_folder is not None:
            self.parts = (*self.parts, "instances")
        if classes.is_scene:
            self.parts = (*self.parts, "scene")
        super().__init__(pairs, classes.label_space, name=str(list_file or maps), on_error=on_error)

    def read(self, record: Pair) -> Sample:
        """One picture with its classes or objects."""
        values = read_values(record.annotation)
        check_size(record, values.shape)
        objects = None
        if self.object_folder is not None:
            path = self.object_folder / record.annotation.name
            objects = read_values(path)
            if objects.shape != values.shape:
                raise SampleError(
                    f"{path} is {objects.shape[0]} high and {objects.shape[1]} wide, {record.annotation} "
                    f"{values.shape[0]} and {values.shape[1]}: they do not belong together"
                )
            values = np.where(objects == VOID, VOID, values)
        annotation = self.table.annotation(values, where=str(record.annotation), objects=objects)
        return self.make_sample(record.name, (record.picture,), annotation)


def _splits(root: Path) -> Iterator[tuple[str, Path]]:
    years = [folder for place in (root, root / "VOCdevkit") for folder in subfolders(place) if folder.name[:3] == "VOC"]
    for home, prefix in ((root, ""), *((folder, f"{folder.name}/") for folder in years)):
        maps = _first_folder(home, _CLASS_FOLDERS)
        if not (home / "JPEGImages").is_dir() or maps is None or next(maps.glob("*.png"), None) is None:
            continue
        lists = sorted((home / "ImageSets" / "Segmentation").glob("*.txt"))
        for name in [path.stem for path in lists] or ["all"]:
            yield prefix + name, home


def _first_folder(home: Path, names: tuple[str, ...]) -> Path | None:
    return next((home / name for name in names if (home / name).is_dir()), None)


LAYOUT = Layout("voc", "Pascal VOC", find_splits, read_voc)
