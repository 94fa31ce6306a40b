"""Readers of Cityscapes: id maps per picture, and the panoptic form with its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.readers.class_maps import ValueTable, read_values
from omg_transformers.data.readers.classes import classes_of_space
from omg_transformers.data.readers.coco_panoptic import CocoPanopticSource, check_annotations
from omg_transformers.data.readers.json_files import read_object
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import Pair, check_size, files_by_name, pair_files, subfolders
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.labels import builtin_label_space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

_PICTURE = "_leftImg8bit.png"
# How 8 and 16 bit hold the label -1 of licence plates.
_MINUS_ONE = frozenset({255, 65535})
# instanceIds.png: label * 1000 + number for single objects, the label alone for stuff and for groups of objects.
_OBJECTS_PER_LABEL = 1000


def read_cityscapes(
    root: str | Path,
    split: str,
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    annotations: str = "gtFine",
) -> CityscapesSource:
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `gtFine/<split>/<city>/*_gtFine_instanceIds.png`.

    Without instanceIds the labelIds are read, and objects are not told apart. Labels outside the 19 classes of the
    benchmark are void; groups of objects are crowds. annotations: "gtCoarse" for the coarse set.
    label_space: default the built-in "cityscapes_label_ids".
    """
    folder = Path(root)
    own = builtin_label_space("cityscapes_label_ids")
    classes = classes_of_space(own, label_space, where=folder)
    pictures, maps = folder / "leftImg8bit" / split, folder / annotations / split
    ending, has_objects = f"_{annotations}_instanceIds.png", True
    found = files_by_name(maps, ending, is_deep=True)
    if not found:
        ending, has_objects = f"_{annotations}_labelIds.png", False
        found = files_by_name(maps, ending, is_deep=True)
    if not found:
        raise ValueError(f"{maps} holds neither *_{annotations}_instanceIds.png nor *{ending}: is the split right?")
    pairs = pair_files(
        files_by_name(pictures, _PICTURE, is_deep=True),
        found,
        expected_picture=lambda name: pictures / f"{name}{_PICTURE}",
        expected_annotation=lambda name: maps / f"{name}{ending}",
    )
    void = frozenset(own.void_ids) | _MINUS_ONE
    table = ValueTable(classes.class_of, classes.label_space.is_thing, void=void)
    return CityscapesSource(
        pairs, classes.label_space, table, has_objects=has_objects, name=str(maps), on_error=on_error
    )


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits with pictures and with maps of labels or instances."""
    return tuple(
        folder.name
        for folder in subfolders(root / "leftImg8bit")
        if next((root / "gtFine" / folder.name).glob("*/*_gtFine_*Ids.png"), None)
    )


class CityscapesSource(FileSource[Pair]):
    """Street scenes with things, stuff, crowds and void; see `read_cityscapes`."""

    def __init__(
        self,
        pairs: list[Pair],
        label_space: LabelSpace,
        table: ValueTable,
        *,
        has_objects: bool,
        name: str,
        on_error: OnError = "raise",
    ) -> None:
        self.table, self.has_objects = table, has_objects
        self.parts = ("classes", "instances", "scene") if has_objects else ("classes", "scene")
        super().__init__(pairs, label_space, name=name, on_error=on_error)

    def read(self, record: Pair) -> Sample:
        """One street scene."""
        values = read_values(record.annotation)
        check_size(record, values.shape)
        labels, objects = values, None
        if self.has_objects:
            values = values.astype("int32")
            is_object = (values >= _OBJECTS_PER_LABEL) & (values != max(_MINUS_ONE))
            labels = values.copy()
            labels[is_object] //= _OBJECTS_PER_LABEL
            # One more than the number, so that 0 is left for groups.
            objects = values % _OBJECTS_PER_LABEL + 1
            objects[~is_object] = 0
        annotation = self.table.annotation(labels, where=str(record.annotation), objects=objects)
        return self.make_sample(record.name, (record.picture,), annotation)


def read_cityscapes_panoptic(
    root: str | Path, split: str, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> CityscapesPanopticSource:
    """`gtFine/cityscapes_panoptic_<split>.json` with the folder of PNGs of that name, as panopticapi makes it.

    A split that ends in "_trainId" holds trainIds, another the ids of labelIds. Pictures are found by their id under
    `leftImg8bit`. label_space: default the built-in one of those ids.
    """
    own = builtin_label_space("cityscapes" if split.endswith("_trainId") else "cityscapes_label_ids")
    classes = classes_of_space(own, label_space, where=Path(root))
    return CityscapesPanopticSource(Path(root), split, classes.label_space, classes.class_of, on_error)


def find_panoptic_splits(root: Path) -> tuple[str, ...]:
    """Splits with `gtFine/cityscapes_panoptic_<split>.json` and the folder of PNGs of the same name."""
    files = sorted(root.glob("gtFine/cityscapes_panoptic_*.json"))
    return tuple(file.stem.removeprefix("cityscapes_panoptic_") for file in files if file.with_suffix("").is_dir())


class CityscapesPanopticSource(CocoPanopticSource):
    """Street scenes in the panoptic form; see `read_cityscapes_panoptic`."""

    def __init__(
        self,
        root: Path,
        split: str,
        label_space: LabelSpace,
        class_of: Mapping[int, int],
        on_error: OnError = "raise",
    ) -> None:
        self.json_path = root / "gtFine" / f"cityscapes_panoptic_{split}.json"
        self.png_folder = self.json_path.with_suffix("")
        place = root / "leftImg8bit"
        self.picture_folder = place / split.removesuffix("_trainId")
        if not self.picture_folder.is_dir():
            self.picture_folder = place
        content = read_object(self.json_path, ("annotations",), title="Cityscapes panoptic")
        check_annotations(content["annotations"], self.json_path)
        FileSource.__init__(self, content["annotations"], label_space, name=str(self.json_path), on_error=on_error)
        self._class_of = dict(class_of)

    def _picture_of(self, record: dict[str, Any]) -> dict[str, Any]:
        name = f"{record['image_id']}{_PICTURE}"
        city = str(record["image_id"]).split("_")[0]
        path = next((path for path in (f"{city}/{name}", name) if (self.picture_folder / path).is_file()), None)
        if path is None:
            raise SampleError(f"{self.picture_folder / city / name} does not exist: put the picture there")
        height, width = frame_size(self.picture_folder / path, name=str(record["image_id"]))
        return {"id": record["image_id"], "file_name": path, "height": height, "width": width}


LAYOUT = Layout("cityscapes", "Cityscapes", find_splits, read_cityscapes)
PANOPTIC_LAYOUT = Layout("cityscapes_panoptic", "Cityscapes panoptic", find_panoptic_splits, read_cityscapes_panoptic)
