"""Reader of SA-1B: masks without classes, one JSON per picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.readers.json_files import mentions, read_sample_object
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_coco
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.sources import SampleError
from omg_transformers.labels import LabelClass, LabelSpace
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.data.sources import OnError
    from omg_transformers.structures import Sample

_ALL = "all"


def read_sa1b(
    root: str | Path, split: str = _ALL, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> Sa1bSource:
    """`sa_1.json` beside `sa_1.jpg`, in the root ("all") or in folders, each a split ("sa_000000").

    Masks overlap: objects, their parts and parts of those. No mask has a class (-1), whatever the label space; default
    is a class-agnostic one. Pixels outside all masks are not void, but nobody says that nothing is there.
    """
    folder = Path(root) if split == _ALL else Path(root) / split
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder} holds no JSON: expected sa_<number>.json beside sa_<number>.jpg")
    space = label_space or LabelSpace("sa1b", (LabelClass("object", dataset_id=1),), is_class_agnostic=True)
    return Sa1bSource(paths, space, name=str(folder), on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """The folders, or the root itself as "all", whose first JSON is one of SA-1B's."""
    return tuple(_ALL if folder == root else folder.name for folder in _folders(root))


class Sa1bSource(FileSource[Path]):
    """Pictures with masks of anything; see `read_sa1b`."""

    def read(self, record: Path) -> Sample:
        """One picture with all its masks."""
        content = read_sample_object(record, ("image", "annotations"), title="SA-1B")
        stated = content["image"]
        path = record.with_name(str(stated.get("file_name") or f"{record.stem}.jpg"))
        size = frame_size(path, name=record.stem)
        if (stated.get("height"), stated.get("width")) != size:
            raise SampleError(
                f"{path} is {size[0]} high and {size[1]} wide, {record} says {stated.get('height')} and "
                f"{stated.get('width')}"
            )
        segments = []
        for found in content["annotations"]:
            number = found.get("id")
            rle = region_of_coco(found.get("segmentation"), size, where=f"{record}: mask {number}")
            if rle is not None:
                segments.append(Segment(-1, (rle,), number if isinstance(number, int) else -1))
        is_thing = tuple(self.label_space.is_thing)
        annotation = Annotation(size, is_thing, tuple(segments), certain_classes=frozenset())
        return self.make_sample(record.stem, (path,), annotation)


def _folders(root: Path) -> Iterator[Path]:
    for folder in (root, *subfolders(root)):
        first = next(iter(sorted(folder.glob("*.json"))), None)
        if first is None or mentions(first, '"categories"'):
            continue
        if mentions(first, '"image"', '"annotations"', '"segmentation"', '"counts"'):
            yield folder


LAYOUT = Layout("sa1b", "SA-1B", find_splits, read_sa1b)
