"""Pictures that hold one whole number per pixel as regions: classes alone, or classes with objects."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.readers.pairs import Pair, check_size
from omg_transformers.data.regions import encode_region, merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.metrics.label_png import MODES, listed, read_label_png
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE, Sample

Values = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ValueTable:
    """What the values of a map mean: the class of each, values that are void, values that are no class but known.

    is_thing: one flag per class of the label space.
    """

    class_of: Mapping[int, int]
    is_thing: tuple[bool, ...]
    void: frozenset[int] = frozenset()
    unlabelled: frozenset[int] = frozenset()

    def annotation(self, values: Values, *, where: str, objects: Values | None = None) -> Annotation:
        """The regions of `values` (H, W), split by `objects` (H, W) where given: 0 there is a crowd of its class.

        Stuff of one class is one segment. Raises SampleError for a value that has no meaning. where: the file.
        """
        size = (int(values.shape[0]), int(values.shape[1]))
        present = {int(value): np.asfortranarray(values == value) for value in np.unique(values)}
        self._check(present, where)
        segments = []
        for value, mask in present.items():
            if value in self.void or value in self.unlabelled:
                continue
            label = self.class_of[value]
            is_whole = objects is None or (label >= 0 and not self.is_thing[label])
            segments += [Segment(label, (encode_region(mask),))] if is_whole else self._objects(label, mask, objects)
        voids = [mask for value, mask in present.items() if value in self.void]
        void: RLE | None = encode_region(np.logical_or.reduce(voids)) if voids else None
        return Annotation(size, self.is_thing, merge_stuff(segments, self.is_thing), (void,))

    @staticmethod
    def _objects(label: int, mask: Values, objects: Values | None) -> list[Segment]:
        assert objects is not None
        return [
            Segment(label, (encode_region(mask & (objects == number)),), int(number) or -1, is_crowd=number == 0)
            for number in np.unique(objects[mask]).tolist()
        ]

    def _check(self, present: Mapping[int, Any], where: str) -> None:
        strangers = sorted(set(present) - set(self.class_of) - self.void - self.unlabelled)
        if strangers:
            raise SampleError(
                f"{where} holds the values {listed(strangers)}, which stand for no class: classes are "
                f"{listed(sorted(self.class_of))}, void is {listed(sorted(self.void)) or 'none'}. Name them or say void"
            )


def read_values(path: Path) -> Values:
    """The values (H, W) of a grey or palette picture, as stored: uint8, or int32 where deeper; read-only.

    Raises SampleError that names the file.
    """
    _check_there(path)
    try:
        return read_label_png(path)
    except ValueError as error:
        raise SampleError(str(error)) from error


def read_mask(path: Path) -> Values:
    """As `read_values`, but forgiving: grey may be stored as equal red, green and blue."""
    _check_there(path)
    return decode_mask(path.read_bytes(), str(path))


def decode_mask(content: bytes, where: str) -> Values:
    """As `read_mask`, from the bytes of a picture file."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, values = image.mode, np.asarray(image)
    except UnidentifiedImageError as error:
        raise SampleError(f"{where} is no readable mask: no picture begins like this") from error
    except (OSError, SyntaxError) as error:
        raise SampleError(f"{where} is no readable mask ({error})") from error
    if mode in ("RGB", "RGBA") and (values[..., :1] == values[..., 1:3]).all():
        return np.ascontiguousarray(values[..., 0])
    if mode not in MODES:
        raise SampleError(
            f"{where} has mode {mode}: expected one whole number per pixel, a PNG with a palette or one channel"
        )
    return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.int32, copy=False)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise SampleError(f"{path} does not exist: put the mask of the picture of this name there")


class ClassMapSource(FileSource[Pair]):
    """Pictures with one class per pixel, in files of the same name.

    is_scene: every pixel has a class or is void; False: some belong to none of the classes.
    """

    def __init__(
        self,
        pairs: list[Pair],
        label_space: LabelSpace,
        table: ValueTable,
        *,
        name: str,
        is_scene: bool = True,
        on_error: OnError = "raise",
    ) -> None:
        self.table = table
        self.parts = ("classes", "scene") if is_scene else ("classes",)
        super().__init__(pairs, label_space, name=name, on_error=on_error)

    def read(self, record: Pair) -> Sample:
        """One picture with its classes."""
        values = read_mask(record.annotation)
        check_size(record, values.shape)
        annotation = self.table.annotation(values, where=str(record.annotation))
        return self.make_sample(record.name, (record.picture,), annotation)
