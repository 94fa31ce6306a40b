"""Reader of Hugging Face `datasets` folders and parquet files: rows of samples, or pictures with masks."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.hub import sample_from_row
from omg_transformers.data.label_mapping import MappedSource
from omg_transformers.data.readers.class_maps import decode_mask
from omg_transformers.data.readers.json_files import read_object
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.mask_classes import mask_classes, names_of_masks, values_seen
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.sources import OnError, SampleError, SampleSource
from omg_transformers.labels import LabelSpace
from omg_transformers.structures import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from datasets import Dataset

    from omg_transformers.data.readers.mask_classes import MaskClasses

_PICTURES = ("image", "pixel_values", "img", "picture")
_MASKS = ("label", "annotation", "mask", "segmentation_map", "seg_map", "segmentation", "labels", "annotations")
_ROWS = frozenset({"sample_id", "size", "frames", "segments", "void", "tasks"})
_SPACE_FILE = "label_space.json"


def read_hf_dataset(
    root: str | Path,
    split: str = "all",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    picture_column: str | None = None,
    mask_column: str | None = None,
    names: Iterable[str] | Mapping[int, str] | None = None,
    void_ids: Iterable[int] | None = None,
    background: bool | None = None,
) -> SampleSource:
    """A folder of `save_to_disk`, or parquet files (`train-00000-of-00002.parquet`, `data/..`, `train/0000.parquet`).

    Rows as `as_iterable_dataset` makes them need the label space of their ids: `label_space.json` in the root (what
    `LabelSpace.to_dict` gives) or `label_space`; with both, classes are found by name. Other rows hold a picture and a
    mask of one value per class; picture_column, mask_column: None: found by their usual names. names (None: of
    `id2label.json` or the like in the root), void_ids and background are those of `read_mask_folder`. Any row is read
    by its number; parquet is unpacked once into the cache of `datasets`. Raises ValueError that says what is missing.
    """
    folder = Path(root)
    table = _open(folder, split)
    where = f"{folder} ({split})"
    if set(table.column_names) >= _ROWS:
        return _rows(table, folder, label_space, where, on_error)
    columns = (
        _column(table, picture_column, _PICTURES, "picture_column", where),
        _column(table, mask_column, _MASKS, "mask_column", where),
    )
    from datasets import Image

    for column in columns:
        table = table.cast_column(column, Image(decode=False))
    table = table.select_columns(list(columns))
    mask_at = functools.partial(_values_of_row, table, columns[1], where)
    seen = values_seen(functools.partial(mask_at, row) for row in range(len(table)))
    named = names_of_masks(names, folder, seen)
    classes = mask_classes(
        named,
        label_space,
        name=folder.resolve().name or "masks",
        where=folder,
        void_ids=void_ids,
        background=background,
    )
    return HubMaskSource(table, columns, classes, name=where, on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits of a saved `DatasetDict`, "all" of a saved `Dataset`, else of parquet files with columns that fit."""
    if (root / "dataset_dict.json").is_file():
        return tuple(folder.name for folder in subfolders(root) if _is_saved(folder))
    if _is_saved(root):
        return ("all",)
    return tuple(split for split, files in _parquet_files(root).items() if _is_readable(_columns_of(files[0])))


class HubMaskSource(FileSource[int]):
    """Rows of pictures with masks; see `read_hf_dataset`."""

    def __init__(
        self, table: Dataset, columns: tuple[str, str], classes: MaskClasses, *, name: str, on_error: OnError = "raise"
    ) -> None:
        self._table, self._columns, self._values_table = table, columns, classes.table
        self.parts = ("classes", "scene") if classes.is_scene else ("classes",)
        super().__init__(range(len(table)), classes.label_space, name=name, on_error=on_error)

    def read(self, record: int) -> Sample:
        """The picture and mask of one row."""
        row = self._table[record]
        where = f"{self.name}, row {record}"
        picture = row[self._columns[0]]
        if not picture or not (picture["bytes"] or picture["path"]):
            raise SampleError(f"{where} has no picture in the column {self._columns[0]!r}")
        frame = picture["bytes"] or Path(picture["path"])
        values = _values(row[self._columns[1]], where)
        size = frame_size(frame, name=where)
        if size != values.shape:
            raise SampleError(f"{where} has a picture of {size} and a mask of {values.shape}: they must agree")
        annotation = self._values_table.annotation(values, where=where)
        return Sample(str(record), (frame,), annotation, self.label_space, self.tasks)


class HubRowSource(FileSource[int]):
    """Rows of samples as `as_iterable_dataset` makes them; see `read_hf_dataset`."""

    def __init__(self, table: Dataset, label_space: LabelSpace, *, name: str, on_error: OnError = "raise") -> None:
        self._table = table
        super().__init__(range(len(table)), label_space, name=name, on_error=on_error)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the heads that the rows were made for, as the first row says."""
        return tuple(self._table[0]["tasks"]) if len(self._table) else ()

    def read(self, record: int) -> Sample:
        """The sample of one row."""
        sample = sample_from_row(self._table[record], self.label_space)
        highest = max((segment.category_id for segment in sample.annotation.segments), default=-1)
        if highest >= len(self.label_space):
            raise SampleError(
                f"{self.name}, row {record} has class {highest}, but the label space {self.label_space.name!r} has "
                f"{len(self.label_space)}: it is another one than the rows were made with"
            )
        return sample


def _rows(table: Dataset, folder: Path, label_space: LabelSpace | None, where: str, on_error: OnError) -> SampleSource:
    path = folder / _SPACE_FILE
    own = LabelSpace.from_dict(read_object(path, ("name", "classes"), title="label space")) if path.is_file() else None
    space = own or label_space
    if space is None:
        raise ValueError(f"{folder} does not say what its class ids mean: put {_SPACE_FILE} there, or pass label_space")
    source = HubRowSource(table, space, name=where, on_error=on_error)
    return source if label_space is None or label_space == space else MappedSource(source, label_space)


def _open(root: Path, split: str) -> Dataset:
    from datasets import Dataset, load_from_disk

    place = root / split if (root / "dataset_dict.json").is_file() else root
    if _is_saved(place):
        return load_from_disk(str(place))
    files = _parquet_files(root).get(split)
    if files is None:
        raise ValueError(
            f"{root} has no split {split!r}: expected a folder of `save_to_disk`, or {split}*.parquet in it or in data/"
        )
    return Dataset.from_parquet([str(path) for path in files])


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """The files of each split, by their names or that of their folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in (*sorted(root.glob("*.parquet")), *sorted(root.glob("*/*.parquet"))):
        name = re.sub(r"-\d+-of-\d+(-[0-9a-f]+)?$", "", path.stem)
        found[path.parent.name if name.isdigit() else name].append(path)
    return dict(found)


def _columns_of(path: Path) -> list[str]:
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    try:
        return list(parquet.read_schema(path).names)
    except (OSError, ArrowException):
        return []


def _is_readable(columns: Sequence[str]) -> bool:
    known = set(columns)
    return known >= _ROWS or not (known.isdisjoint(_PICTURES) or known.isdisjoint(_MASKS))


def _column(table: Dataset, wanted: str | None, usual: Sequence[str], option: str, where: str) -> str:
    names = list(table.column_names)
    found = next((name for name in usual if name in names), None) if wanted is None else wanted
    if found not in names:
        raise ValueError(f"{where} has the columns {names}: say with {option}=... which one to read")
    return str(found)


def _values_of_row(table: Dataset, column: str, where: str, row: int) -> np.ndarray[Any, Any]:
    return _values(table[row][column], f"{where}, row {row}")


def _values(mask: dict[str, Any] | None, where: str) -> np.ndarray[Any, Any]:
    if not mask or not (mask["bytes"] or mask["path"]):
        raise SampleError(f"{where} has no mask")
    return decode_mask(mask["bytes"] or Path(mask["path"]).read_bytes(), where)


LAYOUT = Layout("hf_dataset", "Hugging Face datasets folder or parquet", find_splits, read_hf_dataset)
