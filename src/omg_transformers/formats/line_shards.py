"""A folder of JSON lines that several processes write and a killed run goes on with: one file per process and start."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.formats.atomic_file import read_json, write_json
from omg_transformers.formats.segments_jsonl import read_json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import FileIO
    from typing import Self

ABOUT = "about.json"


class LineShards:
    """Lines of many runs of the same work, in files `shard-<rank>-<random>.jsonl`.

    about: what the work is, JSON. A folder of other work is refused with a ValueError that names what differs.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        # As it comes back from the file: tuples are lists there.
        self.about: dict[str, Any] = json.loads(json.dumps(about))
        self._stream: FileIO | None = None

    def open(self, rank: int = 0) -> Self:
        """Check the folder, make it if it is missing, and start a file of this process."""
        path = self.folder / ABOUT
        if path.is_file():
            known = read_json(path)
            differing = sorted(key for key in {*known, *self.about} if known.get(key) != self.about.get(key))
            if differing:
                key = differing[0]
                raise ValueError(
                    f"{self.folder} holds results of other work: {', '.join(differing)} differ (there {key} is "
                    f"{known.get(key)!r}, now {self.about.get(key)!r}). Choose another folder, or remove this one"
                )
        elif rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.about)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stream = (self.folder / f"shard-{rank:05d}-{secrets.token_hex(4)}.jsonl").open("xb", buffering=0)
        return self

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole lines of all files; a last line that was never finished is left out."""
        for path in sorted(self.folder.glob("shard-*.jsonl")):
            yield from read_json_lines(path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; it is in the file when this returns."""
        if self._stream is None:
            raise RuntimeError("open() the shards before writing")
        self._stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Close this process's file; an empty one is removed."""
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        is_empty = stream.tell() == 0
        stream.close()
        if is_empty:
            Path(stream.name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
