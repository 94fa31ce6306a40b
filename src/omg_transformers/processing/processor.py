"""The one processor: pictures, clips, names and prompts in one call; the model's output back into Segments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file

from omg_transformers.labels import LabelSpace, Vocabulary, builtin_label_space, builtin_label_space_names
from omg_transformers.labels.names import nearest_hint
from omg_transformers.plugins import load_head
from omg_transformers.processing.image_processor import OMGSegImageProcessor
from omg_transformers.processing.prompts import PROMPTS, prepare_prompts
from omg_transformers.structures import QueryOutput, Segments

Labels = LabelSpace | Mapping[str, Any] | str | Sequence[str]

VOCABULARY_FILE = "vocabulary.safetensors"


class OMGSegProcessor(ProcessorMixin):
    """Everything between a user's data and `OMGSegModel`.

    label_space: the classes asked for when a call gives no `labels`. vocabulary: turns names into class embeddings;
    it is saved beside the processor's configuration.
    """

    def __init__(
        self, image_processor: Any, label_space: Labels | None = None, vocabulary: Vocabulary | None = None
    ) -> None:
        super().__init__(image_processor)
        self._label_space = None if label_space is None else as_label_space(label_space)
        self._vocabulary = vocabulary

    @property
    def label_space(self) -> LabelSpace | None:
        """The classes asked for when a call gives no `labels`."""
        return self._label_space

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Turns names into class embeddings; None: only prompts can be asked."""
        return self._vocabulary

    @property
    def model_input_names(self) -> list[str]:
        """The keys of a call that `OMGSegModel.forward` reads."""
        return [*self.image_processor.model_input_names, "class_embeds", *PROMPTS]

    def __call__(
        self,
        images: Any = None,
        labels: Labels | None = None,
        *,
        videos: Sequence[Sequence[Any]] | None = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Inputs for `OMGSegModel`, plus original_sizes (B, 2), the `target_sizes` of `post_process`.

        images: one picture or a list, in any form that `read_picture` takes, of any sizes. videos: clips instead, each
        a list of frames, all with the same number of frames -> pixel_values (B, T, 3, H, W).
        labels: names ("person", "sofa|couch" for synonyms), a LabelSpace, or a built-in space's name
        -> class_embeds (K, P, D).
        input_points [picture][object][point][x, y], input_labels [picture][object][point] (1 inside, 0 outside, -10 no
        point; objects with fewer points are filled up), input_boxes [picture][object][x1, y1, x2, y2] and input_masks
        [picture][object] (H, W): prompts, in pixels of the original pictures, of a clip in its first frame.
        """
        if (images is None) == (videos is None):
            raise ValueError("give either images= or videos=, one of them")
        pictures, num_frames = _flat_pictures(images, videos)
        tensor_type = kwargs.pop("return_tensors", None)
        inputs = self.image_processor(pictures, **kwargs)
        data = dict(inputs)
        first_frames = slice(None, None, num_frames)
        sizes = [(int(height), int(width)) for height, width in data["original_sizes"][first_frames]]
        prompts = {
            "input_points": input_points,
            "input_labels": input_labels,
            "input_boxes": input_boxes,
            "input_masks": input_masks,
        }
        height, width = data["pixel_values"].shape[-2:]
        data |= prepare_prompts(
            prompts,
            sizes=sizes,
            resized_sizes=_content_sizes(data["pixel_mask"][first_frames]),
            input_size=(height, width),
        )
        if videos is not None:
            data = _as_clips(data, num_frames)
        class_embeds = self.class_embeds(labels)
        if class_embeds is not None:
            data["class_embeds"] = class_embeds
        return BatchFeature(data, tensor_type=tensor_type or "pt")

    def resolve_labels(self, labels: Labels | None) -> LabelSpace | None:
        """The label space that `labels` means; None means the processor's own."""
        return self._label_space if labels is None else as_label_space(labels)

    def class_embeds(self, labels: Labels | None = None) -> Tensor | None:
        """Embeddings (K, P, D) of the names; None when no names were given and the processor has none of its own."""
        space = self.resolve_labels(labels)
        if space is None or space.is_class_agnostic:
            return None
        if self._vocabulary is None:
            if labels is None:
                return None
            raise ValueError(
                "labels were given but this processor has no vocabulary to turn names into embeddings: load a "
                "checkpoint with vocabulary.safetensors, or give it a text tower: vocabulary=Vocabulary."
                "from_open_clip(...), --text-tower on the command line"
            )
        return self._vocabulary.class_embeds(space)

    def post_process(
        self,
        outputs: Any,
        *,
        task: str,
        target_sizes: Tensor | Sequence[Sequence[int]],
        labels: Labels | None = None,
        **options: Any,
    ) -> list[Segments]:
        """One result per picture or clip, at its (height, width) in `target_sizes`: `inputs["original_sizes"]`.

        task: name of an installed task head. labels: those of the call that made the inputs. options: the head's own;
        those that suit a checkpoint are in `model.config.head_options`, which only the pipeline applies by itself.
        LookupError names the nearest task; ValueError says what is wrong with `target_sizes` or `labels`.
        """
        head = load_head(task)
        output = outputs if isinstance(outputs, QueryOutput) else outputs.to_query_output()
        space = self.resolve_labels(labels)
        if head.spec.has_classes:
            _check_num_classes(output, space, task)
        sizes = _checked_sizes(target_sizes, len(output))
        is_thing = space.is_thing if space is not None else ()
        return head.postprocess(output, sizes=sizes, is_thing=is_thing, **options)

    def to_dict(self) -> dict[str, Any]:
        """The content of processor_config.json. The vocabulary has a file of its own."""
        return {
            "processor_class": type(self).__name__,
            "image_processor": self.image_processor.to_dict(),
            "label_space": None if self._label_space is None else self._label_space.to_dict(),
        }

    def save_pretrained(
        self,
        save_directory: str | Path,
        push_to_hub: bool = False,
        *,
        label_spaces: Sequence[LabelSpace] = (),
        **kwargs: Any,
    ) -> list[str]:
        """Write processor_config.json and, with a vocabulary, vocabulary.safetensors.

        label_spaces: more spaces whose names a vocabulary with a text tower keeps, besides the processor's own.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self._vocabulary is not None:
            own = () if self._label_space is None else (self._label_space,)
            self._vocabulary.save(folder, label_spaces=(*own, *label_spaces))
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Self:
        """Load from a folder or a hub name, with the vocabulary when one was saved."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        folder = _vocabulary_folder(pretrained_model_name_or_path, kwargs)
        if folder is not None and processor._vocabulary is None:
            processor._vocabulary = Vocabulary.load(folder)
        return processor

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        # The inherited way asks AutoImageProcessor, which knows our class only after it was registered.
        del processor_dict
        return [OMGSegImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {json.dumps(self.image_processor.to_dict(), default=str)}"


def as_label_space(labels: Labels) -> LabelSpace:
    """The label space that a list of names, a space's dictionary, or the name of a built-in space means."""
    if isinstance(labels, LabelSpace):
        return labels
    if isinstance(labels, Mapping):
        return LabelSpace.from_dict(labels)
    if not isinstance(labels, str):
        return LabelSpace.from_names(list(labels))
    if labels in builtin_label_space_names():
        return builtin_label_space(labels)
    raise ValueError(
        f"labels is {labels!r}, which is no built-in label space ({', '.join(builtin_label_space_names())})"
        f"{nearest_hint(labels, builtin_label_space_names())}. For class names, give a list: [{labels!r}]."
    )


def _flat_pictures(images: Any, videos: Sequence[Sequence[Any]] | None) -> tuple[list[Any], int]:
    """All pictures in one list, and the number of frames per sample."""
    if videos is None:
        return (list(images) if isinstance(images, (list, tuple)) else [images]), 1
    counts = [len(clip) for clip in videos]
    if not counts or min(counts) < 1 or len(set(counts)) > 1:
        raise ValueError(
            f"videos holds clips of {counts} frames: give at least one clip, all with the same number of frames"
        )
    return [frame for clip in videos for frame in clip], counts[0]


def _as_clips(data: dict[str, Any], num_frames: int) -> dict[str, Any]:
    sizes = data["original_sizes"].view(-1, num_frames, 2)
    if (sizes != sizes[:, :1]).any():
        raise ValueError(
            f"the frames of one clip differ in size: {sorted(set(map(tuple, sizes.flatten(0, 1).tolist())))}"
        )
    pixel_values = data["pixel_values"]
    return {
        **data,
        "pixel_values": pixel_values.view(-1, num_frames, *pixel_values.shape[1:]),
        "pixel_mask": data["pixel_mask"][::num_frames],
        "original_sizes": sizes[:, 0],
    }


def _content_sizes(pixel_mask: Tensor) -> list[tuple[int, int]]:
    heights, widths = pixel_mask[:, :, 0].sum(1).tolist(), pixel_mask[:, 0, :].sum(1).tolist()
    return list(zip(heights, widths, strict=True))


def _checked_sizes(target_sizes: Tensor | Sequence[Sequence[int]], batch_size: int) -> list[tuple[int, int]]:
    expected = 'expected one (height, width) per picture, as in inputs["original_sizes"]'
    rows = target_sizes.tolist() if isinstance(target_sizes, Tensor) else list(target_sizes)
    rows = [row.tolist() if isinstance(row, Tensor) else row for row in rows]
    if any(not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 2 for row in rows):
        raise ValueError(f"target_sizes is {rows}: {expected}; for one picture, [(height, width)]")
    if len(rows) != batch_size:
        raise ValueError(
            f"target_sizes has {len(rows)} entries but the outputs are for {batch_size} pictures: {expected}"
        )
    if any(int(side) != side or side < 1 for row in rows for side in row):
        raise ValueError(f"target_sizes is {rows}: {expected}, whole numbers of at least 1")
    return [(int(row[0]), int(row[1])) for row in rows]


def _check_num_classes(output: QueryOutput, space: LabelSpace | None, task: str) -> None:
    if output.class_logits is None:
        raise ValueError(f"task {task!r} needs classes but the outputs have none: call the processor with labels=[...]")
    num_classes = output.class_logits.shape[-1] - 1
    if space is None:
        raise ValueError(
            f"task {task!r} needs to know what the {num_classes} classes are: pass labels= as to the processor"
        )
    if len(space) != num_classes:
        raise ValueError(
            f"the outputs have scores for {num_classes} classes but labels has {len(space)} ({space.name!r}): "
            "pass post_process the same labels= as the processor"
        )


def _vocabulary_folder(source: str | Path, kwargs: Mapping[str, Any]) -> Path | None:
    if Path(source).is_dir():
        folder = Path(source) / kwargs.get("subfolder", "")
        return folder if (folder / VOCABULARY_FILE).is_file() else None
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
    options = {name: kwargs[name] for name in names if name in kwargs}
    file = cached_file(str(source), VOCABULARY_FILE, _raise_exceptions_for_missing_entries=False, **options)
    return None if file is None else Path(file).parent
