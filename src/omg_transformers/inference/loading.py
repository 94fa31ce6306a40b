"""A folder becomes a pipeline, with the mistakes that transformers would only warn of as errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

import omg_transformers
from omg_transformers.inference.pipeline import OMGSegPipeline
from omg_transformers.model import OMGSegModel
from omg_transformers.processing import OMGSegProcessor

if TYPE_CHECKING:
    from omg_transformers.labels import Vocabulary


def load_pipeline(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    vocabulary: Vocabulary | None = None,
) -> OMGSegPipeline:
    """The pipeline of the model in `source`.

    source: a folder, or "owner/name" on the hub; None: the small model inside this package. device: None: a GPU if
    there is one. vocabulary: instead of the checkpoint's own.
    Raises ValueError for a folder without a model, weights that lack tensors, and a device that cannot be used.
    """
    place = str(omg_transformers.default_checkpoint()) if source is None else str(source)
    if not (Path(place) / "config.json").is_file() and (Path(place).exists() or len(Path(place).parts) != 2):
        raise ValueError(f"there is no model in {place!r}: give a folder with config.json and model.safetensors")
    used = find_device(device)
    processor = OMGSegProcessor.from_pretrained(place)
    if vocabulary is not None:
        processor = OMGSegProcessor(processor.image_processor, processor.label_space, vocabulary)
    model, report = OMGSegModel.from_pretrained(place, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would only warn, and the answers would be noise
        raise ValueError(
            f"the weights in {place!r} lack {len(missing)} tensors ({', '.join(missing[:3])} ...): they do not belong "
            "to their config.json"
        )
    return OMGSegPipeline(model=model.eval(), processor=processor, device=used)


def find_device(device: str | torch.device | None = None) -> torch.device:
    """The device, tried out. None: a GPU if there is one."""
    wanted = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {wanted!s} cannot be used ({error}): try cpu, or see `omg-seg doctor`") from error
