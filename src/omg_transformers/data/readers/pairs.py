"""Picture files and the annotation files beside them, matched by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.frames import frame_size, turn_hint
from omg_transformers.data.sources import SampleError
from omg_transformers.processing.pictures import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and the file that annotates it; either may be missing, then its path says where it was expected."""

    name: str
    picture: Path
    annotation: Path


def files_by_name(
    folder: Path, ending: str | Iterable[str] = tuple(PICTURE_SUFFIXES), *, is_deep: bool = False
) -> dict[str, Path]:
    """The files of a folder with one of these endings, by what stands before it ("city/name" when deep), sorted.

    Hidden files are left out. Of two files that differ in the ending only, the first by name counts.
    """
    endings = (ending,) if isinstance(ending, str) else tuple(ending)
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*") if is_deep else folder.glob("*")):
        fitting = next((end for end in endings if path.name.lower().endswith(end.lower())), None)
        if fitting is None or path.name.startswith("."):
            continue
        relative = path.relative_to(folder).as_posix()
        found.setdefault(relative[: len(relative) - len(fitting)], path)
    return found


def pair_files(
    pictures: dict[str, Path],
    annotations: dict[str, Path],
    *,
    expected_picture: Callable[[str], Path],
    expected_annotation: Callable[[str], Path],
) -> list[Pair]:
    """One pair per name that occurs on either side, in order of the names."""
    return [
        Pair(name, pictures.get(name) or expected_picture(name), annotations.get(name) or expected_annotation(name))
        for name in sorted({*pictures, *annotations})
    ]


def listed_pairs(
    names: Iterable[str], pictures: dict[str, Path], picture_folder: Path, annotations: Path
) -> list[Pair]:
    """The pairs that a list file names: `<name>.png` in the folder of annotations."""
    return [
        Pair(name, pictures.get(name, picture_folder / f"{name}.jpg"), annotations / f"{name}.png") for name in names
    ]


def check_size(pair: Pair, size: tuple[int, int]) -> None:
    """Refuse, with SampleError, an annotation of another `size` than its picture, and a picture that is not there."""
    found = frame_size(pair.picture, name=pair.name)
    if found != size:
        raise SampleError(
            f"{pair.annotation} is {size[0]} high and {size[1]} wide, its picture {pair.picture} {found[0]} and "
            f"{found[1]}: they do not belong together{turn_hint(pair.picture, size)}"
        )


def has_files(folder: Path, *endings: str) -> bool:
    """Whether at least one visible file of the folder ends so; () means any picture."""
    wanted = endings or tuple(PICTURE_SUFFIXES)
    if not folder.is_dir():
        return False
    return any(path.name.lower().endswith(wanted) and not path.name.startswith(".") for path in folder.iterdir())


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted; none when it is not there."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
