"""Readers of ADE20K: the scene parsing benchmark of 150 classes, and the full data set with its objects."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.readers.class_maps import ClassMapSource, ValueTable
from omg_transformers.data.readers.classes import (
    DatasetClasses,
    classes_of_space,
    in_label_space,
    named_classes,
)
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import Pair, check_size, files_by_name, pair_files, subfolders
from omg_transformers.data.regions import encode_region, merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.labels import builtin_label_space
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

# What a `_seg.png` holds where nobody drew anything.
_NOTHING = 0


def read_ade20k(
    root: str | Path, split: str, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> ClassMapSource:
    """SceneParse150: `images/<split>/*.jpg` and `annotations/<split>/*.png` with 1..150, 0 = void.

    Things are not told apart: a class is one segment. label_space: default the built-in "ade20k".
    """
    folder = Path(root)
    classes = classes_of_space(builtin_label_space("ade20k"), label_space, where=folder)
    pictures, maps = folder / "images" / split, folder / "annotations" / split
    pairs = pair_files(
        files_by_name(pictures, ".jpg"),
        files_by_name(maps, ".png"),
        expected_picture=lambda name: pictures / f"{name}.jpg",
        expected_annotation=lambda name: maps / f"{name}.png",
    )
    table = ValueTable(classes.class_of, classes.label_space.is_thing, void=frozenset({0}))
    return ClassMapSource(pairs, classes.label_space, table, name=str(maps), on_error=on_error)


def find_ade20k_splits(root: Path) -> tuple[str, ...]:
    """Splits of both folders whose maps are ADE20K's by name."""
    return tuple(
        folder.name
        for folder in subfolders(root / "annotations")
        if (root / "images" / folder.name).is_dir() and next(folder.glob("ADE_*.png"), None)
    )


def read_ade20k_full(
    root: str | Path, split: str, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> Ade20kFullSource:
    """ADE20K_2021_17_01: `images/ADE/<split>/**/*.jpg` with `_seg.png` and JSON; places without a class are void.

    Each object of a thing class is a segment; parts of objects (`_parts_N.png`) are not read. label_space: default the
    names in the JSON files of the split, which are then all opened once; thing or stuff as the built-in spaces have
    it, unknown names are things.
    """
    folder = Path(root) / "images" / "ADE" / split
    pairs = pair_files(
        files_by_name(folder, ".jpg", is_deep=True),
        files_by_name(folder, "_seg.png", is_deep=True),
        expected_picture=lambda name: folder / f"{name}.jpg",
        expected_annotation=lambda name: folder / f"{name}_seg.png",
    )
    if not pairs:
        raise ValueError(f"{folder} holds no pictures: expected images/ADE/<split>/**/*_seg.png under the root")
    return Ade20kFullSource(pairs, folder, label_space, on_error)


def find_ade20k_full_splits(root: Path) -> tuple[str, ...]:
    """Splits under `images/ADE` with at least one `_seg.png`."""
    return tuple(folder.name for folder in subfolders(root / "images" / "ADE") if next(folder.rglob("*_seg.png"), None))


class Ade20kFullSource(FileSource[Pair]):
    """Pictures of the full ADE20K; see `read_ade20k_full`."""

    parts = ("classes", "instances", "scene")

    def __init__(
        self, pairs: list[Pair], folder: Path, label_space: LabelSpace | None, on_error: OnError = "raise"
    ) -> None:
        self._wanted = label_space
        self._classes = None if label_space is not None else self._all_classes(pairs)
        space = label_space if self._classes is None else self._classes.label_space
        assert space is not None
        super().__init__(pairs, space, name=str(folder), on_error=on_error)

    def read(self, record: Pair) -> Sample:
        """One picture with its objects."""
        names = _names(record)
        classes = self._classes or self._of_picture(names, record)
        colors = _read_colors(record.annotation)
        check_size(record, colors.shape)
        class_ids = (colors >> 16) // 10 * 256 + (colors >> 8 & 255)
        is_thing = tuple(self.label_space.is_thing)
        segments = []
        for number, color in enumerate(np.unique(colors[class_ids != _NOTHING]).tolist(), 1):
            class_id = (color >> 16) // 10 * 256 + (color >> 8 & 255)
            if class_id not in names:
                raise SampleError(
                    f"{record.annotation} holds class {class_id}, which no object of {_json_of(record).name} has: "
                    "the two files do not belong together"
                )
            segments.append(Segment(classes.class_of[class_id], (encode_region(colors == color),), number))
        void = encode_region(np.asfortranarray(class_ids == _NOTHING))
        annotation = Annotation((colors.shape[0], colors.shape[1]), is_thing, merge_stuff(segments, is_thing), (void,))
        return self.make_sample(record.name, (record.picture,), annotation)

    @staticmethod
    def _all_classes(pairs: list[Pair]) -> DatasetClasses:
        names: dict[int, str] = {}
        for pair in pairs:
            # What is wrong with a file is told when its sample is read.
            with contextlib.suppress(SampleError):
                names.update(_names(pair))
        if not names:
            raise ValueError(f"no JSON beside {pairs[0].annotation} names classes: put them there, or pass label_space")
        return named_classes(dict(sorted(names.items())), name="ade20k_full")

    def _of_picture(self, names: dict[int, str], record: Pair) -> DatasetClasses:
        try:
            return in_label_space(named_classes(names, name="ade20k_full"), self._wanted, where=_json_of(record))
        except ValueError as error:
            raise SampleError(str(error)) from error


def _json_of(pair: Pair) -> Path:
    return pair.annotation.with_name(pair.annotation.name.removesuffix("_seg.png") + ".json")


def _names(pair: Pair) -> dict[int, str]:
    """{class: name} of the objects of one picture, without parts of objects."""
    path = _json_of(pair)
    try:
        # ADE20K's own files are in this encoding.
        objects = json.loads(path.read_text(encoding="latin-1"))["annotation"]["object"]
        # A single object is not in a list.
        objects = objects if isinstance(objects, list) else [objects]
        whole = [found for found in objects if not found.get("parts", {}).get("part_level", 0)]
        return {int(found["name_ndx"]): str(found["name"]) for found in whole}
    except OSError as error:
        raise SampleError(f"{path} cannot be read ({error.strerror}): it names the classes of {pair.name}") from error
    except json.JSONDecodeError as error:
        raise SampleError(f"{path} is not valid JSON ({error}): was it cut short?") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SampleError(f"{path} has no objects with name and name_ndx ({error!r}): is it ADE20K of 2021?") from error


def _read_colors(path: Path) -> np.ndarray[Any, Any]:
    """Red, green and blue of each pixel as one number (H, W) int32, in Fortran order."""
    try:
        with Image.open(path) as picture:
            colors = np.asarray(picture.convert("RGB")).astype(np.int32)
    except (OSError, SyntaxError) as error:
        raise SampleError(f"{path} is missing or not a readable PNG ({error})") from error
    return np.asfortranarray((colors[..., 0] << 16) + (colors[..., 1] << 8) + colors[..., 2])


LAYOUT = Layout("ade20k", "ADE20K scene parsing (150 classes)", find_ade20k_splits, read_ade20k)
FULL_LAYOUT = Layout("ade20k_full", "ADE20K full (2021_17_01)", find_ade20k_full_splits, read_ade20k_full)
