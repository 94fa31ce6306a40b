"""Reader of LVIS, whose pictures are searched for some classes only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers.classes import classes_of_json
from omg_transformers.data.readers.coco_instances import MORE, CocoInstancesSource, read_coco
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.regions import decode_region, encode_region, merge_stuff
from omg_transformers.ops.masks import rle_box
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE


def read_lvis(
    root: str | Path, split: str, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> LvisSource:
    """LVIS v0.5 and v1: `annotations/lvis_<split>.json` (or beside the folders), pictures as in their `coco_url`.

    A class that a picture shows more often than it is annotated there (`not_exhaustive_category_ids`) gets a crowd
    everywhere outside the boxes of annotated objects, so that finding more of it is no error. Only the annotated
    classes and those of `neg_category_ids` are certain in a picture: nobody looked for the others.
    label_space: default the file's categories with their synonyms, all things.
    """
    folder = Path(root)
    path = next((path for path in _files(folder) if _split_of(path) == split), None)
    if path is None:
        raise ValueError(f"{folder} has no split {split!r}: expected annotations/lvis_{split}.json")
    content = read_coco(path, title="LVIS")
    used = {annotation.get("category_id") for annotation in content["annotations"]}
    used |= {number for picture in content["images"] for number in picture.get(MORE, ())}
    classes = classes_of_json(content["categories"], label_space, name="lvis", where=path, used=used)
    return LvisSource(path, folder, content, classes, on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits with a `lvis_<split>.json` in `annotations` or in the root."""
    return tuple(_split_of(path) for path in _files(root))


class LvisSource(CocoInstancesSource):
    """Pictures of one LVIS file; see `read_lvis`."""

    def picture_path(self, record: dict[str, Any]) -> Path:
        """The last two parts of `coco_url` ("train2017/000000391895.jpg"); v0.5 and v1 differ in `file_name`."""
        url = record.get("coco_url")
        return super().picture_path(record if not url else {**record, "file_name": "/".join(url.split("/")[-2:])})

    def annotation(self, record: dict[str, Any], size: tuple[int, int], segments: list[Segment]) -> Annotation:
        """The objects, and a crowd for each class of which there are more."""
        incomplete = {self._class_of[number] for number in record.get(MORE, ()) if number in self._class_of}
        is_thing = tuple(self.label_space.is_thing)
        rest = _outside_boxes(segments, size) if incomplete else None
        crowds = [Segment(label, (rest,), is_crowd=True) for label in sorted(incomplete) if rest is not None]
        known = merge_stuff([*segments, *crowds], is_thing)
        return Annotation(size, is_thing, known, certain_classes=self._certain_classes(record))

    def certain_classes(self, index: int) -> frozenset[int]:
        """Classes of which sample number `index` shows the annotated objects and no others; none for the rest."""
        return self._certain_classes(self.records[index])


def _outside_boxes(segments: list[Segment], size: tuple[int, int]) -> RLE | None:
    """Boxes stay known so that the outlines of the annotated objects can still be learnt against their surroundings."""
    rest = ~decode_region(None, size)
    for segment in segments:
        left, top, right, bottom = (int(edge) for edge in rle_box(segment.masks[0]))
        rest[top:bottom, left:right] = False
    return encode_region(rest)


def _files(root: Path) -> list[Path]:
    return [*sorted(root.glob("annotations/lvis_*.json")), *sorted(root.glob("lvis_*.json"))]


def _split_of(path: Path) -> str:
    return path.stem.removeprefix("lvis_")


LAYOUT = Layout("lvis", "LVIS", find_splits, read_lvis)
