"""`pipeline("omg-segmentation")`: pictures in, named and scored masks out."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Pipeline

from omg_transformers.inference.requests import Request, make_request, resolve_labels
from omg_transformers.inference.results import on_cpu
from omg_transformers.labels import LabelSpace
from omg_transformers.plugins import TaskHead, available_heads, load_head
from omg_transformers.processing.grouping import group_by_key
from omg_transformers.processing.pictures import read_picture
from omg_transformers.processing.processor import Labels
from omg_transformers.structures import Segments

PROMPTS = ("input_points", "input_labels", "input_boxes")
QUERY_INPUTS = "query_inputs"


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    segments: Segments
    label_space: LabelSpace | None


class OMGSegPipeline(Pipeline):
    """Segments pictures by any installed task and any names.

    Per call or on construction: task (or subtask, the stock pipelines' word), labels, threshold, any option of the
    task's head (else the checkpoint's `head_options` hold, else the head's own), and prompts of a picture in its own
    pixels: input_points [object][point][x, y], input_labels [object][point], input_boxes [box][x1, y1, x2, y2];
    query_inputs: a batch of one for a plug-in's query encoder, in pixels of the model's input. Per call, a picture may
    be {"image": ..., prompts}.
    Returns per picture a list of {"label", "score", "mask" (PIL "L", 0 or 255), "id", "box" {xmin, ymin, xmax, ymax,
    the last two exclusive}, "is_thing"}. A list gives a list, a generator a generator.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Segment one picture, a list, or a generator of pictures, in any form that `read_picture` takes."""
        inputs = kwargs.pop("images", None) if inputs is None else inputs
        if inputs is None:
            raise ValueError("the pipeline was called without a picture: pass a path, a PIL image, an array or a list")
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, Iterator) and not isinstance(inputs, io.IOBase):
            inputs = (picture for picture in inputs)  # transformers streams generators only
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def segment(self, pictures: Sequence[Any], **kwargs: Any) -> list[Segments]:
        """Like a call with a list, but one forward pass for all, and `Segments` instead of pictures of masks."""
        preprocess, forward, _ = self._merged_parameters(kwargs)
        items = [self.preprocess(picture, **preprocess) for picture in pictures]
        return [answer.segments for answer in self.forward(items, **forward)] if items else []

    def request(self, *, task: str | None = None, labels: Labels | None = None, **options: Any) -> Request:
        """Check and complete what a call asks: the head, its classes and its options. The errors name the nearest."""
        head = load_head(task) if task is not None else self._default_head("learned")
        if head.spec.is_video:
            raise ValueError(f"task {head.spec.name!r} needs clips, and this pipeline takes pictures")
        return make_request(
            self.model,
            self._processor(),
            head,
            labels=labels,
            options=options,
            known_options=("task", "labels", *PROMPTS),
        )

    def resolve_labels(self, labels: Labels | None) -> LabelSpace | None:
        """The label space of a call: names, one of the checkpoint's spaces by name, a built-in one, or the default."""
        return resolve_labels(self.model, self._processor(), labels)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and processor, without `custom_pipelines`: they ask users to trust code that is installed."""
        self.model.save_pretrained(save_directory, **kwargs)
        self._processor().save_pretrained(save_directory, **kwargs)

    def _processor(self) -> Any:
        if self.processor is None:
            raise ValueError(
                "the pipeline has no processor: pass processor=OMGSegProcessor(...) or a folder that has one"
            )
        return self.processor

    def _default_head(self, query_type: str) -> TaskHead:
        names = available_heads()
        default = self.model.config.default_task
        for name in [default, *names] if default else names:
            spec = load_head(name).spec
            if spec.query_type == query_type and not spec.is_video:
                return load_head(name)
        raise ValueError(f"no installed head answers {query_type!r} queries; installed: {', '.join(names) or 'none'}")

    def _merged_parameters(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = self._sanitize_parameters(**kwargs)
        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        preprocess, forward, postprocess = ({**mine, **new} for mine, new in zip(own, given, strict=True))
        return preprocess, forward, postprocess

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if "subtask" in kwargs:
            kwargs["task"] = kwargs.pop("subtask")
        if "images" in kwargs:
            raise TypeError("images= is given twice: pass the pictures once")
        preprocess = {name: kwargs.pop(name) for name in (*PROMPTS, QUERY_INPUTS) if kwargs.get(name) is not None}
        threshold = kwargs.get("threshold")
        if threshold is not None and not (isinstance(threshold, int | float | np.number) and 0 <= threshold <= 1):
            raise ValueError(f"threshold is {threshold!r}: expected a score from 0 to 1")
        # For these None says "as usual"; for a head's own option it is a value, stronger than the checkpoint's.
        unset = [name for name in ("task", "labels", "threshold", *PROMPTS, QUERY_INPUTS) if kwargs.get(name) is None]
        return preprocess, {name: value for name, value in kwargs.items() if name not in unset}, {}

    def preprocess(self, picture: Any, **prompts: Any) -> dict[str, Any]:
        """One picture, decoded, with its prompts."""
        if isinstance(picture, Mapping):
            known = ("image", *PROMPTS, QUERY_INPUTS)
            if set(picture) - set(known) or "image" not in picture:
                raise ValueError(f"a picture given as a dictionary has the keys {sorted(picture)}: expected {known}")
            prompts = {**prompts, **{name: picture[name] for name in known[1:] if picture.get(name) is not None}}
            picture = picture["image"]
        return {"picture": read_picture(picture, max_pixels=self._processor().image_processor.max_pixels), **prompts}

    def _forward(self, items: Any, **kwargs: Any) -> list[_Answer]:
        """Answers in the order of `items`; pictures that cannot share a batch go one batch after the other."""
        items = items if isinstance(items, list) else [items]
        if "task" not in kwargs and any(name in item for item in items for name in PROMPTS):
            kwargs = {**kwargs, "task": self._default_head("prompt").spec.name}
        request = self.request(**kwargs)
        for item in items:
            _check_prompts(request.head, item)
        answers: dict[int, _Answer] = {}
        for group in group_by_key([self._batch_key(item) for item in items]):
            results = self._segment_batch([items[index] for index in group], request)
            answers.update(zip(group, results, strict=True))
        return [answers[index] for index in range(len(items))]

    def _batch_key(self, item: Mapping[str, Any]) -> tuple[Any, ...]:
        """Items with equal keys may share a batch: same prompts in number, and same size where padding would matter."""
        if QUERY_INPUTS in item:  # only their encoder knows how to batch them
            return (id(item),)
        try:
            shapes = tuple(np.shape(item[name]) if name in item else None for name in PROMPTS)
        except ValueError:  # ragged: the processor says what is wrong
            return (id(item),)
        if self.model.config.backbone_pads_safely:
            return shapes
        return (self._processor().image_processor.padded_size(item["picture"].shape[:2]), *shapes)

    def _segment_batch(self, items: list[dict[str, Any]], request: Request) -> list[_Answer]:
        processor, head, space = self._processor(), request.head, request.label_space
        prompts = {name: [item[name] for item in items] for name in PROMPTS if name in items[0]}
        inputs = processor([item["picture"] for item in items], **prompts)
        inputs.pop("class_embeds", None)
        if request.class_embeds is not None:
            inputs["class_embeds"] = request.class_embeds
        sizes = [tuple(size) for size in inputs.pop("original_sizes").tolist()]
        asked = {"query_type": head.spec.query_type, QUERY_INPUTS: items[0].get(QUERY_INPUTS)}
        asked = self._ensure_tensor_on_device(asked, self.device)
        inputs = inputs.to(self.device)
        # Prompts and names stay float32: bfloat16 cannot tell pixel 1000 from 1004.
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        outputs = self.model(**inputs, **asked)
        is_thing = space.is_thing if space is not None else ()
        results = head.postprocess(outputs.to_query_output(), sizes=sizes, is_thing=is_thing, **request.options)
        return [_Answer(on_cpu(segments), space) for segments in results]

    def postprocess(self, answer: _Answer) -> list[dict[str, Any]]:
        """One dictionary per segment of one picture."""
        segments, space = answer.segments, answer.label_space
        return [_describe(segments, index, space) for index in range(len(segments))]

    def run_single(self, inputs: Any, preprocess_params: Any, forward_params: Any, postprocess_params: Any) -> Any:
        """One picture."""
        item = self.preprocess(inputs, **preprocess_params)
        return self.postprocess(self.forward([item], **forward_params)[0], **postprocess_params)

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: Any,
        forward_params: Any,
        postprocess_params: Any,
    ) -> Iterator[Any]:
        """Lazily, `batch_size` pictures per forward pass. num_workers is not used: pictures differ in size."""
        del num_workers
        pictures = iter(inputs)
        while chunk := [self.preprocess(picture, **preprocess_params) for picture in islice(pictures, batch_size)]:
            for answer in self.forward(chunk, **forward_params):
                yield self.postprocess(answer, **postprocess_params)


def _check_prompts(head: TaskHead, item: Mapping[str, Any]) -> None:
    name, query_type = head.spec.name, head.spec.query_type
    has_prompts = any(prompt in item for prompt in PROMPTS)
    if has_prompts and query_type != "prompt":
        raise ValueError(f"task {name!r} takes no points or boxes: leave task out, or name one that does")
    if query_type == "prompt" and not has_prompts:
        raise ValueError(
            f"task {name!r} needs a prompt: pass input_points=[[[x, y]]] or input_boxes=[[x1, y1, x2, y2]]"
        )


def _describe(segments: Segments, index: int, space: LabelSpace | None) -> dict[str, Any]:
    mask: np.ndarray[Any, np.dtype[np.bool_]] = segments.mask(index)[0].numpy()
    label = int(segments.labels[index])
    has_class = space is not None and label >= 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)
    return {
        "label": space.names[label] if space is not None and has_class else None,
        "score": float(segments.scores[index]),
        "mask": Image.fromarray(mask.astype(np.uint8) * 255),
        "id": int(segments.ids[index]),
        "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, edges), strict=True)),
        "is_thing": space.is_thing[label] if space is not None and has_class else True,
    }
