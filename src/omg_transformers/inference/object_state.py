"""All that a session of followed objects knows: explicit, picklable, and one safe file on disk."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from omg_transformers.inference.label_propagation import LabelledFrame
from omg_transformers.inference.object_prompts import ObjectPrompt
from omg_transformers.inference.state_files import SavedState

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = ("settings", "fingerprint", "next_frame", "ids")


@dataclasses.dataclass(frozen=True, slots=True)
class KnownFrame:
    """A frame that was answered. picture: (H, W, 3) uint8 while it can still be corrected, then None."""

    labelled: LabelledFrame
    picture: np.ndarray[Any, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectState(SavedState):
    """Followed objects between two frames. Feed a restored session with the frames from `next_frame` on.

    ids: of the objects, in the order given. prompts: for frames to come, (frame, prompt). anchors: frames in which
    objects were given. frames: the last ones. frame_size: (height, width).
    """

    kind: ClassVar[str] = "object state"
    settings: dict[str, Any]
    fingerprint: str
    next_frame: int = 0
    frame_size: tuple[int, int] | None = None
    ids: tuple[int, ...] = ()
    prompts: tuple[tuple[int, ObjectPrompt], ...] = ()
    anchors: tuple[LabelledFrame, ...] = ()
    frames: tuple[KnownFrame, ...] = ()

    def to(self, device: torch.device) -> ObjectState:
        """The same state with its tensors on a device."""
        return dataclasses.replace(
            self,
            anchors=tuple(_moved(anchor, device) for anchor in self.anchors),
            frames=tuple(KnownFrame(_moved(frame.labelled, device), frame.picture) for frame in self.frames),
        )

    def _pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        header: dict[str, Any] = {name: getattr(self, name) for name in (*PLAIN, "frame_size")}
        tensors: dict[str, Tensor] = {}
        header["prompts"] = []
        for number, (index, prompt) in enumerate(self.prompts):
            header["prompts"].append({"frame": index, "prompt": {**dataclasses.asdict(prompt), "mask": None}})
            if prompt.mask is not None:
                tensors[f"prompts.{number}.mask"] = torch.from_numpy(np.ascontiguousarray(prompt.mask))
        header["anchors"] = [_describe(anchor) for anchor in self.anchors]
        header["frames"] = [_describe(frame.labelled) for frame in self.frames]
        for number, anchor in enumerate(self.anchors):
            tensors |= {f"anchors.{number}.features": anchor.features, f"anchors.{number}.labels": anchor.labels}
        for number, frame in enumerate(self.frames):
            tensors[f"frames.{number}.features"] = frame.labelled.features
            tensors[f"frames.{number}.labels"] = frame.labelled.labels
            if frame.picture is not None:
                tensors[f"frames.{number}.picture"] = torch.from_numpy(np.ascontiguousarray(frame.picture))
        return tensors, header

    @classmethod
    def _unpack(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        size = header["frame_size"]
        return cls(
            header["settings"],
            header["fingerprint"],
            header["next_frame"],
            None if size is None else (size[0], size[1]),
            tuple(header["ids"]),
            tuple(
                (row["frame"], _unpack_prompt(row["prompt"], tensors.get(f"prompts.{number}.mask")))
                for number, row in enumerate(header["prompts"])
            ),
            tuple(_unpack_frame(row, tensors, f"anchors.{n}.") for n, row in enumerate(header["anchors"])),
            tuple(
                KnownFrame(_unpack_frame(row, tensors, f"frames.{n}."), _as_array(tensors.get(f"frames.{n}.picture")))
                for n, row in enumerate(header["frames"])
            ),
        )


def _describe(frame: LabelledFrame) -> dict[str, Any]:
    return {"index": frame.index, "ids": frame.ids, "is_anchor": frame.is_anchor}


def _unpack_frame(row: dict[str, Any], tensors: dict[str, Tensor], prefix: str) -> LabelledFrame:
    features, labels = tensors[f"{prefix}features"], tensors[f"{prefix}labels"]
    return LabelledFrame(row["index"], features, labels, tuple(row["ids"]), row["is_anchor"])


def _unpack_prompt(row: dict[str, Any], mask: Tensor | None) -> ObjectPrompt:
    points = row["points"]
    return ObjectPrompt(
        row["object_id"],
        _as_array(mask),
        None if row["box"] is None else tuple(row["box"]),
        None if points is None else tuple(tuple(point) for point in points),
        None if row["point_labels"] is None else tuple(row["point_labels"]),
    )


def _as_array(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if tensor is None else tensor.numpy()


def _moved(frame: LabelledFrame, device: torch.device) -> LabelledFrame:
    return dataclasses.replace(frame, features=frame.features.to(device), labels=frame.labels.to(device))
