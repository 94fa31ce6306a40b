"""A table of known names and their vectors, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from omg_transformers.labels.names import clean_name, loose_name, nearest_names

VOCABULARY_FILE = "vocabulary.safetensors"
# One key only: safetensors writes several in random order, and equal tables should be equal files.
_METADATA_KEY = "omg_transformers.vocabulary"
_VERSION = 1


def table_file(place: str | Path) -> Path:
    """The vocabulary file at a place: the place itself if it ends in .safetensors, else inside that folder."""
    place = Path(place)
    return place if place.suffix == ".safetensors" else place / VOCABULARY_FILE


class NameTable:
    """Names and their unit vectors, (N, D) float32. Names are compared forgivingly, see `names.loose_name`.

    What was given is what is written again, in its own precision: a table does not change by being saved.
    """

    def __init__(self, names: Sequence[str], embeddings: Tensor) -> None:
        self.names = tuple(names)
        _check_table(self.names, embeddings)
        self._given = embeddings.detach().cpu()
        self.embeddings = F.normalize(self._given.float(), dim=-1)
        self._row_of_clean = {clean_name(name): row for row, name in reversed(list(enumerate(self.names)))}
        self._row_of_loose = {loose_name(name): row for row, name in reversed(list(enumerate(self.names)))}

    def find(self, name: str) -> int | None:
        """The row of a name: as written, but for case and underscores; else ignoring hyphens and "-merged"."""
        row = self._row_of_clean.get(clean_name(name))
        return self._row_of_loose.get(loose_name(name)) if row is None else row

    def rows(self, names: Sequence[str]) -> Tensor:
        """(len(names), D). Unknown names: one ValueError that lists them all with the nearest known ones."""
        found = [self.find(name) for name in names]
        unknown = [name for name, row in zip(names, found, strict=True) if row is None]
        if unknown:
            lines = [f"{name!r} (nearest: {', '.join(nearest_names(name, self.names)) or 'none'})" for name in unknown]
            raise ValueError(
                f"the vocabulary of this model is a table of {len(self.names)} names and does not know "
                f"{'; '.join(lines)}. Use known names, or give a vocabulary with a text tower "
                "(Vocabulary.from_open_clip, Vocabulary.from_transformers)"
            )
        return self.embeddings[[row for row in found if row is not None]]

    def write(self, file: Path, *, center: Tensor | None = None) -> Path:
        """Write the vectors, the names as metadata. A file of that name is replaced in one step."""
        from safetensors.torch import save

        from omg_transformers.formats.atomic_file import write_bytes

        tensors = {"embeddings": self._given.contiguous()}
        if center is not None:
            tensors["center"] = center.float().contiguous()
        description = json.dumps({"version": _VERSION, "names": self.names}, ensure_ascii=False)
        content = save(tensors, metadata={_METADATA_KEY: description})
        file.parent.mkdir(parents=True, exist_ok=True)
        return write_bytes(file, content)

    @staticmethod
    def read(file: Path) -> tuple[tuple[str, ...], Tensor, Tensor | None]:
        """Names, vectors (N, D), center (D,) or None. Not such a file: ValueError; no file: FileNotFoundError."""
        from safetensors import SafetensorError, safe_open

        if not file.is_file():
            raise FileNotFoundError(f"no vocabulary at {file}: expected the file that `Vocabulary.save` writes")
        try:
            with safe_open(file, framework="pt") as content:
                metadata = content.metadata() or {}
                tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a readable safetensors file ({error}): write it again") from error
        description = json.loads(metadata.get(_METADATA_KEY, "{}"))
        if description.get("version") != _VERSION or "embeddings" not in tensors:
            raise ValueError(
                f"{file} is no vocabulary of version {_VERSION} (metadata keys {sorted(metadata)}, tensors "
                f"{sorted(tensors)}): write it with `Vocabulary.save` of this version"
            )
        center = tensors.get("center")
        names = tuple(description["names"])
        return names, tensors["embeddings"], None if center is None else center.float()


def _check_table(names: Sequence[str], embeddings: Tensor) -> None:
    if embeddings.ndim != 2 or len(embeddings) != len(names) or not names:
        raise ValueError(
            f"a table needs one row per name: got {len(names)} names and embeddings of shape {tuple(embeddings.shape)}"
        )
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise ValueError(f"a table holds the empty name {name!r}: leave it out")
        if clean_name(name) in seen:
            raise ValueError(f"a table holds {name!r} and {seen[clean_name(name)]!r}: one name, keep one row")
        seen[clean_name(name)] = name
    lengths = embeddings.float().norm(dim=-1)
    bad = torch.nonzero(~(lengths > 0) | ~torch.isfinite(lengths)).flatten().tolist()
    if bad:
        raise ValueError(f"the vector of {names[bad[0]]!r} is zero or not finite: every name needs a direction")
