"""A PNG with one class per pixel, in the label space's order, with its colours as palette."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from omg_transformers.formats.atomic_file import write_png
from omg_transformers.structures import Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omg_transformers.labels import LabelSpace

VOID = 255
DEEP_VOID = 65535


def class_map(segments: Segments, *, frame: int = 0, void: int = -1) -> NDArray[np.int64]:
    """The class (H, W) at each pixel, `void` where there is none. The segments must not overlap."""
    if segments.id_map is None:
        raise ValueError("these Segments may overlap: a map of classes needs segments that do not (id_map)")
    ids = segments.id_map[frame].cpu().numpy()
    table = np.full(max(int(ids.max(initial=0)), *segments.ids.tolist(), 0) + 1, void, dtype=np.int64)
    labels = segments.labels.cpu().numpy()
    table[segments.ids.cpu().numpy()] = np.where(labels < 0, void, labels)
    return table[ids]


def write_class_png(path: str | Path, segments: Segments, label_space: LabelSpace, *, frame: int = 0) -> Path:
    """Write the class at each pixel: 8 bit with the space's colours, void 255.

    A space of more than 255 classes gets 16 bit, void 65535.
    """
    if len(label_space) > VOID:
        return write_png(path, Image.fromarray(class_map(segments, frame=frame, void=DEEP_VOID).astype(np.uint16)))
    image = Image.fromarray(class_map(segments, frame=frame, void=VOID).astype(np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(label_space)] = label_space.colors
    image.putpalette(palette.tobytes())
    return write_png(path, image)


def read_class_png(path: str | Path) -> NDArray[np.int64]:
    """The class (H, W) at each pixel, -1 = void."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is missing or not a readable PNG ({error})") from error
    if values.ndim != 2:
        raise ValueError(f"{path} has {values.shape[2]} channels: expected a PNG with one value, the class, per pixel")
    void = VOID if values.dtype == np.uint8 else DEEP_VOID
    classes = values.astype(np.int64)
    return np.where(classes == void, -1, classes)


def segments_of_class_map(classes: NDArray[Any], label_space: LabelSpace) -> Segments:
    """One segment per class that occurs, id = class + 1, score 1. classes: (H, W), -1 = void."""
    if classes.min(initial=0) < -1 or classes.max(initial=0) >= len(label_space):
        raise ValueError(
            f"classes run from {classes.min()} to {classes.max()}: label space {label_space.name!r} has "
            f"{len(label_space)}, "
            "counted from 0; -1 is void"
        )
    present = [int(label) for label in np.unique(classes) if label >= 0]
    return Segments(
        (classes.shape[0], classes.shape[1]),
        torch.tensor([label + 1 for label in present], dtype=torch.long),
        torch.tensor(present, dtype=torch.long),
        torch.ones(len(present)),
        id_map=torch.from_numpy((classes + 1).astype(np.int32))[None],
    )
