"""Saved models of transformers behind the evaluator's door: their outputs, our heads.

Every compared model is post-processed by the same heads, never by its own `post_process_*`: figures then differ by what
the models say, not by how it is read. An adapter turns a model's outputs into a `QueryOutput`: its padding and resizing
undone exactly, its class names matched to those of the data.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError

from omg_transformers.data.frames import decode_frames
from omg_transformers.evaluation.foreign_labels import ClassMatch
from omg_transformers.evaluation.foreign_prompts import PromptedModel
from omg_transformers.evaluation.foreign_queries import TASKS, LearnedQueryModel
from omg_transformers.inference.state_files import model_fingerprint
from omg_transformers.labels.names import nearest_hint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from omg_transformers.labels import LabelSpace
    from omg_transformers.plugins import TaskHead
    from omg_transformers.structures import QueryOutput, Sample, Segments

LEARNED_MODELS = {
    "eomt": "EomtForUniversalSegmentation",
    "eomt_dinov3": "EomtDinov3ForUniversalSegmentation",
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "maskformer": "MaskFormerForInstanceSegmentation",
    "oneformer": "OneFormerForUniversalSegmentation",
}
# Checkpoints of SAM 2 are published as `sam2_video`; the picture model reads the part that it needs.
PROMPTED_MODELS = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
FOREIGN_MODEL_TYPES: tuple[str, ...] = tuple(sorted({**LEARNED_MODELS, **PROMPTED_MODELS}))
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# What loading a damaged or unfitting folder raises.
LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError)


class ForeignModel(Protocol):
    """One picture in, the model's own answer out; class logits over `class_names`."""

    query_type: str
    class_names: tuple[str, ...]
    model: Any

    def check_prompts(self, prompts: Mapping[str, Any]) -> None:
        """Refuse prompts that the model cannot take."""

    def answer(self, picture: Image, task: str, prompts: Mapping[str, Any]) -> QueryOutput:
        """A batch of one."""


class ForeignSegmenter:
    """Answers samples with another model and our heads, one picture at a time.

    notes: what of the class names did not fit one to one, for every label space that was asked for so far.
    """

    def __init__(self, name: str, model: ForeignModel) -> None:
        self.name, self.foreign = name, model
        self.num_parameters: int = sum(parameter.numel() for parameter in model.model.parameters())
        self.fingerprint = model_fingerprint(model.model)
        self._matches: dict[LabelSpace, ClassMatch] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Classes that the model does not know, names that the data does not have, names that share a class."""
        return tuple(note for match in self._matches.values() for note in match.notes)

    def segment(
        self,
        samples: Sequence[Sample],
        head: TaskHead,
        prompts: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[Segments]:
        """One result per sample at the size of its annotation; labels are indices into the sample's label space.

        prompts: per sample, in pixels of its picture, {} for heads that need none. options: the head's own.
        """
        self._check_head(head)
        for prompt in prompts:
            self.foreign.check_prompts(prompt)
        return [self._segment(sample, head, prompt, options) for sample, prompt in zip(samples, prompts, strict=True)]

    @torch.no_grad()
    def _segment(
        self, sample: Sample, head: TaskHead, prompts: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Segments:
        pictures = decode_frames(sample)
        if len(pictures) != 1:
            raise ValueError(f"{self.name} takes pictures, and sample {sample.sample_id!r} has {len(pictures)} frames")
        output = self.foreign.answer(pictures[0], head.spec.name, prompts)
        if head.spec.has_classes and output.class_logits is not None:
            class_logits = self._match(sample.label_space).class_logits(output.class_logits)
            output = dataclasses.replace(output, class_logits=class_logits)
        annotation = sample.annotation
        (segments,) = head.postprocess(output, sizes=[annotation.size], is_thing=annotation.is_thing, **options)
        return _on_cpu(segments)

    def _match(self, label_space: LabelSpace) -> ClassMatch:
        if label_space not in self._matches:
            try:
                self._matches[label_space] = ClassMatch.of(self.foreign.class_names, label_space)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
        return self._matches[label_space]

    def _check_head(self, head: TaskHead) -> None:
        spec, model_type = head.spec, self.foreign.model.config.model_type
        if spec.is_video:
            raise ValueError(f"task {spec.name!r} needs clips, and {self.name} ({model_type}) takes pictures")
        if spec.query_type != self.foreign.query_type:
            can = "points and boxes" if self.foreign.query_type == "prompt" else "learned queries, never prompts"
            raise ValueError(
                f"task {spec.name!r} asks by {spec.query_type!r} queries, and {self.name} ({model_type}) answers "
                f"{can}: compare it by a task whose query type is {self.foreign.query_type!r}"
            )
        if spec.has_classes and not self.foreign.class_names:
            raise ValueError(
                f"task {spec.name!r} needs classes, and {self.name} ({model_type}) knows none: "
                "compare it by a task without classes"
            )


def open_foreign(folder: Path, *, device: torch.device | str, multimask_output: bool = True) -> ForeignSegmenter:
    """Open a folder that `save_pretrained` wrote for a model of `FOREIGN_MODEL_TYPES` and its processor.

    Nothing is fetched, no code of the folder is run, weights are safetensors only, in float32. multimask_output: see
    `PromptedModel`. ValueError names the file that is missing or damaged and what to do.
    """
    import transformers

    model_type = _model_type(folder)
    class_name = {**LEARNED_MODELS, **PROMPTED_MODELS}[model_type]
    _check_files(folder)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # OneFormer would fetch class names that only its training needs.
    silent = {"class_info_file": None} if model_type == "oneformer" else {}
    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **safe, **silent)
        tokens = _task_tokens(folder, model.config.task_seq_len) if model_type == "oneformer" else {}
    except LOAD_ERRORS as error:
        raise ValueError(
            f"{folder} cannot be opened as a {model_type} model: {error}. Save model and processor there again with "
            "save_pretrained of transformers"
        ) from error
    _check_weights(folder, info)
    model.eval().to(device)
    if model_type in PROMPTED_MODELS:
        return ForeignSegmenter(folder.name, PromptedModel(model, processor, multimask_output=multimask_output))
    return ForeignSegmenter(folder.name, LearnedQueryModel(model, processor, tokens))


def _task_tokens(folder: Path, length: int) -> dict[str, Tensor]:
    """What OneFormer is told for each task: (1, length) token ids, 0 for padding."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokens = {}
    for task in TASKS:
        encoded = tokenizer(
            [f"the task is {task}"], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        tokens[task] = encoded["input_ids"] * encoded["attention_mask"]
    return tokens


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{folder} has no config.json: give a folder that save_pretrained of transformers wrote"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): save or fetch the model again") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in FOREIGN_MODEL_TYPES:
        raise ValueError(
            f"{path} has model_type {model_type!r}: expected one of {', '.join(FOREIGN_MODEL_TYPES)}"
            f"{nearest_hint(str(model_type), FOREIGN_MODEL_TYPES)}"
        )
    return str(model_type)


def _check_files(folder: Path) -> None:
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise ValueError(
            f"{folder} has no {PROCESSOR_FILES[0]}: save the model's processor there too, "
            "processor.save_pretrained(folder), or fetch that file from where the model came from"
        )
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} has no *.safetensors file: weights of other kinds can run code when they are read. Fetch the "
            "safetensors version, or save the model again with save_pretrained of transformers"
        )


def _check_weights(folder: Path, info: Mapping[str, Any]) -> None:
    # Weights of the loss say nothing about answers, and some published checkpoints leave them out.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("criterion."))
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}, ...): they would be "
            "random. Fetch or save the model again"
        )


def _on_cpu(segments: Segments) -> Segments:
    tensors = {name: getattr(segments, name) for name in ("ids", "labels", "scores", "id_map")}
    return dataclasses.replace(segments, **{name: value.cpu() for name, value in tensors.items() if value is not None})
