"""Reader of what many people have: a folder of pictures and a folder of masks with the same names."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.readers.class_maps import ClassMapSource, read_mask
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.mask_classes import mask_classes, names_of_masks, values_seen
from omg_transformers.data.readers.pairs import Pair, files_by_name, pair_files, subfolders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

_PICTURE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos")
_MASK_FOLDERS = ("masks", "mask", "annotations", "labels", "segmentation", "segmentations", "gt", "ground_truth")
# Beside a folder of pictures "train": "train_labels", "train_masks".
_MASK_ENDINGS = ("_masks", "_mask", "_labels", "_annot")
# JPEG is left out: it blurs ids.
_MASK_SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff")


def read_mask_folder(
    root: str | Path,
    split: str = "all",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    pictures: str | Path | None = None,
    masks: str | Path | None = None,
    names: Iterable[str] | Mapping[int, str] | None = None,
    void_ids: Iterable[int] | None = None,
    background: bool | None = None,
) -> ClassMapSource:
    """Masks of one value per class (grey or palette), each with its picture of the same name; a class is one segment.

    pictures, masks: the two folders relative to `root`; None: found by their names. names: of the values, a list
    counted from 0 or {value: name}; None: `classes.txt` or the like; masks of 0 and 1, or 0 and 255, need none: they
    show an "object". void_ids: values that nobody labelled; None: 255, unless it has a name. background: whether 0
    (without a name of its own) is a stuff class; False: these pixels are in no segment, and semantic heads cannot learn
    from the set; None: True, unless `label_space` does not know it. Raises ValueError that says what is missing.
    """
    folder = Path(root)
    if (pictures is None) != (masks is None):
        raise ValueError(f"pictures is {pictures!r} and masks {masks!r}: give both folders, or neither")
    if pictures is not None and masks is not None:
        places: tuple[Path, Path] | None = (folder / pictures, folder / masks)
    else:
        places = next((found for name, found in _places(folder) if name == split), None)
    if places is None:
        raise ValueError(
            f"{folder} has no pictures beside masks for the split {split!r}: expected images/ and masks/, or "
            f"images/{split}/ and masks/{split}/; or pass pictures=... and masks=..."
        )
    pairs = _pairs(*places)
    if not pairs:
        raise ValueError(f"{places[0]} holds no pictures and {places[1]} no masks")
    masks_there = (pair.annotation for pair in pairs if pair.annotation.is_file())
    seen = values_seen(functools.partial(read_mask, path) for path in masks_there)
    named = names_of_masks(names, folder, seen)
    classes = mask_classes(
        named,
        label_space,
        name=folder.resolve().name or "masks",
        where=folder,
        void_ids=void_ids,
        background=background,
    )
    return ClassMapSource(
        pairs, classes.label_space, classes.table, name=str(places[1]), is_scene=classes.is_scene, on_error=on_error
    )


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits with a folder of pictures and one of masks that share a name; "all" where both are in the root."""
    return tuple(dict.fromkeys(split for split, _ in _places(root)))


def _places(root: Path) -> Iterator[tuple[str, tuple[Path, Path]]]:
    for pictures, masks in folder_pairs(root):
        if _share_a_name(pictures, masks):
            yield "all", (pictures, masks)
        for folder in subfolders(pictures):
            if _share_a_name(folder, masks / folder.name):
                yield folder.name, (folder, masks / folder.name)
    for folder in subfolders(root):
        beside = [(folder, folder.with_name(folder.name + ending)) for ending in _MASK_ENDINGS]
        for places in (*folder_pairs(folder), *beside):
            if _share_a_name(*places):
                yield folder.name, places


def folder_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Folders of pictures and of masks by their names, in one folder."""
    known = {folder.name.lower(): folder for folder in subfolders(root)}
    return [
        (known[pictures], known[masks])
        for pictures, masks in itertools.product(_PICTURE_FOLDERS, _MASK_FOLDERS)
        if pictures in known and masks in known
    ]


def _share_a_name(pictures: Path, masks: Path) -> bool:
    if not pictures.is_dir() or not masks.is_dir():
        return False
    return not files_by_name(pictures).keys().isdisjoint(_masks_by_name(masks))


def _masks_by_name(folder: Path) -> dict[str, Path]:
    """Masks by the name of their picture: "dog_mask.png" belongs to "dog"."""
    return {name.removesuffix("_mask"): path for name, path in files_by_name(folder, _MASK_SUFFIXES).items()}


def _pairs(pictures: Path, masks: Path) -> list[Pair]:
    for place in (pictures, masks):
        if not place.is_dir():
            raise ValueError(f"{place} is no folder: say with pictures=... and masks=... where they are")
    return pair_files(
        files_by_name(pictures),
        _masks_by_name(masks),
        expected_picture=lambda name: pictures / f"{name}.jpg",
        expected_annotation=lambda name: masks / f"{name}.png",
    )


LAYOUT = Layout("mask_folder", "pictures beside masks", find_splits, read_mask_folder)
