"""Which pictures a command works on, and output folders that are known to take files before any work is done."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

# What a few pictures need; a disk with less is full for our purpose.
NEEDED_BYTES = 16 * 2**20


def find_pictures(paths: Iterable[Path], suffixes: Iterable[str]) -> list[Path]:
    """The given files, and of each given folder its pictures, sorted. ValueError: a folder without any."""
    known = {suffix.lower() for suffix in suffixes}
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file for file in path.iterdir() if file.suffix.lower() in known and not file.name.startswith(".")
        )
        if not inside:
            raise ValueError(f"the folder {path} holds no picture ({', '.join(sorted(known))}): give another folder")
        found += inside
    return list(dict.fromkeys(found))


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
