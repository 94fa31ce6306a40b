"""Who answers: a model of ours asked as users ask it, or another one behind an adapter."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from omg_transformers.data.frames import decode_frames
from omg_transformers.evaluation.foreign import FOREIGN_MODEL_TYPES, open_foreign
from omg_transformers.inference import OMGSegPipeline, load_pipeline
from omg_transformers.inference.results import join_frames
from omg_transformers.inference.state_files import model_fingerprint
from omg_transformers.model import OMGSegConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from omg_transformers.plugins import TaskHead
    from omg_transformers.structures import Sample, Segments


class Segmenter(Protocol):
    """Answers a task on samples. fingerprint: a short name for its very weights."""

    name: str
    num_parameters: int
    fingerprint: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What its answers lack, so far."""

    def segment(
        self,
        samples: Sequence[Sample],
        head: TaskHead,
        prompts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[Segments]:
        """One result per sample at its annotation's size; labels are indices into the sample's label space.

        prompts: per sample what the pipeline takes, {} for heads that need none. options: of the head.
        """


class PipelineSegmenter:
    """A model of ours through the pipeline: what is measured is what users get."""

    notes: tuple[str, ...] = ()

    def __init__(self, pipeline: OMGSegPipeline, name: str = "model") -> None:
        self.pipeline, self.name = pipeline, name
        self.num_parameters = sum(parameter.numel() for parameter in pipeline.model.parameters())
        self.fingerprint = model_fingerprint(pipeline.model)

    def segment(
        self,
        samples: Sequence[Sample],
        head: TaskHead,
        prompts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[Segments]:
        """See `Segmenter`. A model in training is set to evaluation meanwhile. Clips are followed frame by frame."""
        labels = {"labels": samples[0].label_space} if samples and head.spec.has_classes else {}
        asked = {"task": head.spec.name, **labels, **options}
        model = self.pipeline.model
        was_training = model.training
        model.eval()
        try:
            if head.spec.is_video:
                return [
                    join_frames(self.pipeline.follow(_frames(sample), **prompt, **asked))
                    for sample, prompt in zip(samples, prompts, strict=True)
                ]
            questions = [{"image": _picture(sample), **prompt} for sample, prompt in zip(samples, prompts, strict=True)]
            return self.pipeline.segment(questions, **asked)
        finally:
            if was_training:
                model.train()


def open_segmenter(folder: str | Path, *, device: str | torch.device = "cpu") -> Segmenter:
    """The model in a folder: one of ours, or of a type in FOREIGN_MODEL_TYPES.

    Raises ValueError for a folder that holds no model, an unknown type, and weights that do not belong to the config.
    """
    folder = Path(folder)
    kind = _model_type(folder)
    if kind in FOREIGN_MODEL_TYPES:
        return open_foreign(folder, device=device)
    if kind != OMGSegConfig.model_type:
        known = (OMGSegConfig.model_type, *FOREIGN_MODEL_TYPES)
        nearest = difflib.get_close_matches(str(kind), known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{folder} holds a model of type {kind!r}: expected one of {', '.join(known)}.{hint}")
    return PipelineSegmenter(load_pipeline(folder, device=device), folder.name)


def _model_type(folder: Path) -> Any:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"there is no model in {folder}: give a folder with config.json and model.safetensors")
    try:
        config = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    return config.get("model_type") if isinstance(config, dict) else None


def _frames(sample: Sample) -> list[NDArray[np.uint8]]:
    return [np.asarray(frame) for frame in decode_frames(sample)]


def _picture(sample: Sample) -> Any:
    if len(sample.frames) != 1:
        raise ValueError(f"it is a clip of {len(sample.frames)} frames, and this task takes pictures: use a video task")
    return sample.frames[0]
