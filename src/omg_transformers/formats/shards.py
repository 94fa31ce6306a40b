"""A folder of results that several processes fill at once: one growing file of JSON lines for each, by key.

Whatever stops a process, its whole lines stay; only the last can be torn, and `repair_shards` removes it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from omg_transformers.formats.segments_jsonl import read_json_lines, segments_from_dict, segments_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from omg_transformers.structures import Segments

SHARDS = "shard-*.jsonl"
KEY_START = b'{"key": '
BLOCK = 2**20


class ShardWriter:
    """Appends results to the file of process `number`. ValueError: another run writes to it now."""

    def __init__(self, folder: str | Path, number: int) -> None:
        self._stream = _open_alone(Path(folder) / f"shard-{number:05d}.jsonl")

    def add(self, key: str, segments: Segments) -> None:
        """Append one result, at once and whole."""
        self._stream.write(json.dumps({"key": key, **segments_to_dict(segments)}).encode() + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Let other runs write to the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


class KeySet:
    """Which keys are there, in 16 bytes for each however long it is. digests: (N, 2) uint64, sorted by row."""

    def __init__(self, digests: NDArray[np.uint64]) -> None:
        self.digests = digests

    @classmethod
    def of(cls, keys: Iterable[str]) -> Self:
        """Of any number of keys."""
        data = b"".join(_digest(key) for key in keys)
        return cls(np.unique(np.frombuffer(data, np.uint64).reshape(-1, 2), axis=0))

    def __len__(self) -> int:
        return len(self.digests)

    def __contains__(self, key: str) -> bool:
        first, second = np.frombuffer(_digest(key), np.uint64)
        start = int(np.searchsorted(self.digests[:, 0], first))
        stop = int(np.searchsorted(self.digests[:, 0], first, side="right"))
        return bool((self.digests[start:stop, 1] == second).any())


def shard_paths(folder: str | Path) -> list[Path]:
    """The files of all processes, in order."""
    return sorted(Path(folder).glob(SHARDS))


def repair_shards(folder: str | Path) -> int:
    """Remove what is left of a line whose writer was killed; returns the number of files that had one.

    ValueError: another run writes to a file now.
    """
    repaired = 0
    for path in shard_paths(folder):
        with _open_alone(path) as stream:
            end = stream.seek(0, 2)
            whole = _end_of_last_line(stream, end)
            if whole < end:
                stream.truncate(whole)
                repaired += 1
    return repaired


def shard_keys(folder: str | Path) -> Iterator[str]:
    """The keys of all results, without decoding the masks."""
    for path in shard_paths(folder):
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                yield _key(line, path, number)


def read_shards(folder: str | Path) -> Iterator[tuple[str, Segments]]:
    """All results with their keys, one at a time, file after file."""
    for path in shard_paths(folder):
        for content in read_json_lines(path):
            yield content["key"], segments_from_dict(content)


def _open_alone(path: Path) -> BinaryIO:
    stream = path.open("ab+")
    try:
        _lock(stream)
    except OSError as error:
        stream.close()
        raise ValueError(
            f"{path} is being written by another run: wait for it, end it, or choose another output folder"
        ) from error
    return stream


def _lock(stream: BinaryIO) -> None:
    # There is no fcntl on Windows: two runs into one folder at once are then not noticed.
    with suppress(ImportError):
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _end_of_last_line(stream: BinaryIO, end: int) -> int:
    place = end
    while place > 0:
        start = max(0, place - BLOCK)
        stream.seek(start)
        found = stream.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


def _key(line: bytes, path: Path, number: int) -> str:
    try:
        if not line.startswith(KEY_START):
            raise ValueError("it does not start with its key")
        key: Any = json.JSONDecoder().raw_decode(line.decode(), len(KEY_START))[0]
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is not a result ({error}): remove the line") from error
    return str(key)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest()
