"""Which pictures a command works on, and output folders that are known to take files before any work is done."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

# What a few pictures need; a disk with less is full for our purpose.
NEEDED_BYTES = 16 * 2**20
LIST_SUFFIX = ".txt"


def find_pictures(paths: Iterable[Path], suffixes: Iterable[str]) -> list[Path]:
    """The given files, of each given folder its pictures, sorted, and of each given .txt file the paths in it.

    ValueError: a folder or a list without any.
    """
    known = {suffix.lower() for suffix in suffixes}
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [path / name for name in _names_in_folder(path, known)]
        elif path.suffix.lower() == LIST_SUFFIX:
            found += [path.parent / line for line in _lines_of_list(path)]
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def list_inputs(path: Path, suffixes: Iterable[str]) -> list[tuple[str, Path]]:
    """The pictures of one folder or list by keys that do not depend on where the command runs: names in the folder,
    lines of the list.
    """
    if path.is_dir():
        names = _names_in_folder(path, {suffix.lower() for suffix in suffixes})
        return [(name, path / name) for name in names]
    if path.suffix.lower() == LIST_SUFFIX:
        return [(line, path.parent / line) for line in dict.fromkeys(_lines_of_list(path))]
    return [(path.name, path)]


def _names_in_folder(folder: Path, known: set[str]) -> list[str]:
    with os.scandir(folder) as entries:  # a million Path objects would be ten times as slow
        names = sorted(
            entry.name
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in known and not entry.name.startswith(".")  # noqa: PTH122
        )
    if not names:
        raise ValueError(f"the folder {folder} holds no picture ({', '.join(sorted(known))}): give another folder")
    return names


def _lines_of_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of paths ({error}): expected UTF-8 text, one path per line") from error
    except FileNotFoundError as error:
        raise ValueError(f"there is no list at {str(path)!r}: expected a text file, one path per line") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(f"the list {path} is empty: expected one path per line")
    return found


def unique_names(paths: Iterable[Path]) -> list[str]:
    """One file name without suffix per path: its own, with a number when two are equal."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def prepare_folder(folder: Path) -> None:
    """Make `folder` and write a trial file. ValueError says why results could not be kept there."""
    trial = folder / f".omg-seg-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(bytes(2**16))
        free = shutil.disk_usage(folder).free
    except FileExistsError as error:
        raise ValueError(f"--out {folder} is a file, not a folder: choose another") from error
    except OSError as error:
        raise ValueError(
            f"cannot write to --out {folder} ({error.strerror}): choose a folder you may write to"
        ) from error
    finally:
        trial.unlink(missing_ok=True) if folder.is_dir() else None
    if free < NEEDED_BYTES:
        raise ValueError(
            f"the disk of --out {folder} is full ({free / 2**20:.0f} MiB free): make room or choose another"
        )
