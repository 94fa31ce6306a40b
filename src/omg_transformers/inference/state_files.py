"""The state of a session as one safetensors file: tensors, and JSON in its header. Nothing in it can run code."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from omg_transformers.formats.atomic_file import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel

VERSION = 1
KEY = "omg_state"
# Values of each tensor that the fingerprint looks at: reading 220 million of them would take a second.
SAMPLED = 256


class SavedState:
    """What a session knows, as one file. A state says what its tensors and its plain values are."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def nbytes(self) -> int:
        """Bytes of everything but a few numbers: what `save` writes, more or less."""
        return sum(tensor.nbytes for tensor in self._pack()[0].values())

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all; what is no tensor is JSON in its header."""
        return write_state(path, self.kind, *self._pack())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. ValueError when it is no such file."""
        return cls._unpack(*read_state(path, cls.kind))

    @abstractmethod
    def _pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and a header of JSON."""

    @classmethod
    @abstractmethod
    def _unpack(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        """The state that `_pack` described."""


def model_fingerprint(model: OMGSegModel) -> str:
    """A short name for these very weights, from their names, shapes, types and a sample of their values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def require_fingerprint(model: OMGSegModel, expected: str) -> None:
    """Refuse a model other than the one that a state was made with."""
    found = model_fingerprint(model)
    if found != expected:
        raise ValueError(
            f"the state was made with another model ({expected}, this one is {found}): "
            "load the weights it was made with, in the same dtype, or start a new session"
        )


def write_state(path: str | Path, kind: str, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write a state whole or not at all. header: JSON only."""
    text = json.dumps({**header, "kind": kind, "version": VERSION})
    # Copies: safetensors refuses tensors that share memory, such as a frame that is known and not yet given out.
    return write_bytes(
        path, save({name: part.cpu().contiguous().clone() for name, part in tensors.items()}, {KEY: text})
    )


def read_state(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_state` wrote. ValueError when it is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: give the file that a session's state was saved to")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dictionary
    except SafetensorError as error:
        raise ValueError(f"{path} is no saved state of a session ({error}): was its writer interrupted?") from error
    header: dict[str, Any] = json.loads(text) if text else {}
    if (header.get("kind"), header.get("version")) != (kind, VERSION):
        found = f"a {header['kind']} of version {header.get('version')}" if "kind" in header else "something else"
        raise ValueError(f"{path} holds {found}: expected a {kind} of version {VERSION}, saved by this release")
    return tensors, header
