"""All that a video session knows: explicit, picklable, and one safe file on disk."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from omg_transformers.inference.results import FrameResult
from omg_transformers.inference.state_files import SavedState
from omg_transformers.inference.tracking import ROWS, QueryMemory
from omg_transformers.structures import RLE, Segments

PLAIN = ("settings", "fingerprint", "next_frame", "num_given", "frame_size", "next_id", "num_known", "is_read")


@dataclasses.dataclass(frozen=True, slots=True)
class MaskGrid:
    """What packed masks are of: (Q, h, w), and where the picture is in the padded input, as in `QueryOutput`."""

    shape: tuple[int, int, int]
    input_size: tuple[int, int] | None
    content_size: tuple[int, int] | None


@dataclasses.dataclass(frozen=True, slots=True)
class VideoState(SavedState):
    """A video session between two frames. Feed a restored session with the frames from `next_frame` on.

    settings: what the session was made with, JSON only. fingerprint: of the model. frame_size: (height, width).
    tracks: (N, 4) int64, see `Tracks`. frames: read but not all answered, the first `num_known` of them known from
    the clip before. pending: answered but not given out. masks: offline sessions keep those of every frame, packed;
    grid says of what shape. is_read: an offline session knows the whole video.
    """

    kind: ClassVar[str] = "video state"
    settings: dict[str, Any]
    fingerprint: str
    next_frame: int = 0
    num_given: int = 0
    frame_size: tuple[int, int] | None = None
    memory: QueryMemory | None = None
    tracks: Tensor = dataclasses.field(default_factory=lambda: torch.zeros((0, 4), dtype=torch.int64))
    next_id: int = 1
    frames: tuple[np.ndarray[Any, Any], ...] = ()
    num_known: int = 0
    pending: tuple[FrameResult, ...] = ()
    masks: tuple[bytes, ...] = ()
    grid: MaskGrid | None = None
    is_read: bool = False

    def _pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        header: dict[str, Any] = {name: getattr(self, name) for name in PLAIN}
        header["grid"] = None if self.grid is None else dataclasses.asdict(self.grid)
        tensors = {"tracks": self.tracks}
        if self.memory is not None:
            tensors |= {f"memory.{name}": part.cpu().contiguous() for name, part in self.memory.tensors.items()}
            header["memory"] = {"num_clips": self.memory.num_clips, "num_frames": self.memory.num_frames}
        for number, frame in enumerate(self.frames):
            tensors[f"frames.{number:04d}"] = torch.from_numpy(np.ascontiguousarray(frame))
        for number, mask in enumerate(self.masks):
            tensors[f"masks.{number:08d}"] = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
        header["pending"] = []
        for number, result in enumerate(self.pending):
            described, parts = _pack_result(result)
            header["pending"].append(described)
            tensors |= {f"pending.{number:04d}.{name}": part for name, part in parts.items()}
        return tensors, header

    @classmethod
    def _unpack(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        memory = None
        if "memory" in header:
            rows = {name: tensors.get(f"memory.{name}") for name in ROWS}
            memory = QueryMemory(**rows, **header["memory"])  # type: ignore[arg-type]
        plain = {name: header[name] for name in PLAIN} | {"frame_size": _as_tuple(header["frame_size"])}
        grid = header["grid"]
        return cls(
            **plain,
            grid=None if grid is None else MaskGrid(**{name: _as_tuple(value) for name, value in grid.items()}),
            memory=memory,
            tracks=tensors["tracks"],
            frames=tuple(part.numpy() for name, part in sorted(tensors.items()) if name.startswith("frames.")),
            pending=tuple(
                _unpack_result(described, tensors, f"pending.{number:04d}.")
                for number, described in enumerate(header["pending"])
            ),
            masks=tuple(part.numpy().tobytes() for name, part in sorted(tensors.items()) if name.startswith("masks.")),
        )


def _as_tuple(value: list[int] | None) -> Any:
    return None if value is None else tuple(value)


def _pack_result(result: FrameResult) -> tuple[dict[str, Any], dict[str, Tensor]]:
    segments = result.segments
    parts = {"ids": segments.ids, "labels": segments.labels, "scores": segments.scores}
    parts["frame"] = torch.from_numpy(np.ascontiguousarray(result.frame))
    if segments.id_map is not None:
        parts["id_map"] = segments.id_map
    parts |= {f"info.{name}": value for name, value in segments.info.items() if isinstance(value, Tensor)}
    rles = None
    if segments.rles is not None:
        rles = [
            [None if rle is None else {**rle, "counts": rle["counts"].decode()} for rle in row] for row in segments.rles
        ]
    described = {"index": result.index, "size": segments.size, "rles": rles}
    return described, {name: part.cpu().contiguous() for name, part in parts.items()}


def _unpack_result(described: dict[str, Any], tensors: dict[str, Tensor], prefix: str) -> FrameResult:
    parts = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
    rles = described["rles"]
    if rles is not None:
        rles = tuple(tuple(None if rle is None else _unpack_rle(rle) for rle in row) for row in rles)
    info = {name.removeprefix("info."): part for name, part in parts.items() if name.startswith("info.")}
    height, width = described["size"]
    segments = Segments(
        (height, width), parts["ids"], parts["labels"], parts["scores"], parts.get("id_map"), rles, info
    )
    return FrameResult(described["index"], segments, parts["frame"].numpy())


def _unpack_rle(rle: dict[str, Any]) -> RLE:
    return {"size": rle["size"], "counts": rle["counts"].encode()}
