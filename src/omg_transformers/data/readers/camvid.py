"""Reader of CamVid in the layout of SegNet: pairs of a picture and its classes, listed in a text file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.readers.class_maps import ValueTable, read_values
from omg_transformers.data.readers.classes import DatasetClasses, classes_of_space
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import Pair, check_size
from omg_transformers.data.readers.videos import first_line, names_in
from omg_transformers.data.sources import OnError
from omg_transformers.labels import LabelClass, LabelSpace

if TYPE_CHECKING:
    from omg_transformers.structures import Sample

VOID = 11
# Name, synonyms, whether its objects can be counted, and the colour of CamVid.
_CLASSES = (
    ("sky", (), False, (128, 128, 128)),
    ("building", (), False, (128, 0, 0)),
    ("pole", (), False, (192, 192, 128)),
    ("road", (), False, (128, 64, 128)),
    ("pavement", ("sidewalk",), False, (60, 40, 222)),
    ("tree", ("vegetation",), False, (128, 128, 0)),
    ("sign symbol", ("traffic sign", "traffic light"), False, (192, 128, 128)),
    ("fence", (), False, (64, 64, 128)),
    ("car", (), True, (64, 0, 128)),
    ("pedestrian", ("person",), True, (64, 64, 0)),
    ("bicyclist", ("rider",), True, (0, 128, 192)),
)


def camvid_label_space() -> LabelSpace:
    """SegNet's 11 classes, ids 0 to 10; 11 is void."""
    return LabelSpace(
        "camvid",
        tuple(
            LabelClass(name, synonyms, is_thing, color, number)
            for number, (name, synonyms, is_thing, color) in enumerate(_CLASSES)
        ),
        void_ids=(VOID,),
    )


def read_camvid(
    root: str | Path, split: str = "train", *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> CamvidSource:
    """Pictures and masks of `root/SPLIT.txt`, one pair of paths per line; things are not told apart.

    Paths count from `root`; of paths that begin with a slash (SegNet's own lists) the last two parts do.
    label_space: default `camvid_label_space`.
    """
    root = Path(root)
    path = root / f"{split}.txt"
    pairs = [_pair(line, root, path) for line in names_in(path)]
    classes = classes_of_space(camvid_label_space(), label_space, where=path)
    return CamvidSource(pairs, classes, name=str(path), on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Lists of pairs whose first pair is there."""
    return tuple(path.stem for path in sorted(root.glob("*.txt")) if _lists_pairs(path, root))


class CamvidSource(FileSource[Pair]):
    """Pictures with the class of every pixel; see `read_camvid`."""

    parts = ("classes", "scene")

    def __init__(self, records: list[Pair], classes: DatasetClasses, *, name: str, on_error: OnError = "raise") -> None:
        super().__init__(records, classes.label_space, name=name, on_error=on_error)
        self._table = ValueTable(classes.class_of, classes.label_space.is_thing, void=frozenset({VOID}))

    def read(self, record: Pair) -> Sample:
        """One picture."""
        annotation = self._table.annotation(read_values(record.annotation), where=str(record.annotation))
        check_size(record, annotation.size)
        return self.make_sample(record.name, (record.picture,), annotation)


def _pair(line: str, root: Path, path: Path) -> Pair:
    words = line.split()
    if len(words) != 2:
        raise ValueError(f"{path} has the line {line!r}: expected a picture and its mask, as PICTURE MASK")
    picture, mask = (root.joinpath(*Path(word).parts[-2:]) if word.startswith("/") else root / word for word in words)
    return Pair(f"{picture.parent.name}/{picture.stem}", picture, mask)


def _lists_pairs(path: Path, root: Path) -> bool:
    words = first_line(path).split()
    if len(words) != 2 or not all(word.lower().endswith(".png") for word in words):
        return False
    pair = _pair(" ".join(words), root, path)
    return pair.picture.is_file() and pair.annotation.is_file()


LAYOUT = Layout("camvid", "CamVid (SegNet)", find_splits, read_camvid)
