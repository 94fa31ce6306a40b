"""`pipeline("omg-segmentation")`: pictures and videos in, named and scored masks out."""

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

from omg_transformers.inference.frames import open_frames
from omg_transformers.inference.requests import (
    Request,
    SeenClasses,
    check_threshold,
    make_request,
    resolve_labels,
)
from omg_transformers.inference.results import FrameResult, on_cpu
from omg_transformers.inference.video_objects import ObjectSession
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.labels import LabelSpace
from omg_transformers.plugins import TaskHead, available_heads, load_head
from omg_transformers.processing.grouping import group_by_key
from omg_transformers.processing.pictures import read_picture
from omg_transformers.processing.processor import Labels
from omg_transformers.processing.prompts import PROMPTS
from omg_transformers.structures import Segments

QUERY_INPUTS = "query_inputs"


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    segments: Segments
    label_space: LabelSpace | None


class OMGSegPipeline(Pipeline):
    """Segments pictures and videos by any installed task and any names.

    Per call or on construction: task (or subtask, the stock pipelines' word), labels, threshold, any option of the
    task's head (else the checkpoint's `head_options` hold, else the head's own), seen_classes ("trained", the trained
    names, or one flag per name: then a CLIP backbone helps with the others), and prompts of a picture in its own
    pixels: input_points [object][point][x, y], input_labels [object][point] (1 inside, 0 outside), input_boxes
    [object][x1, y1, x2, y2], input_masks [object] (H, W): what is clicked holds; multimask_output: several masks per
    prompt in a row, the scores say which is best; threshold may be {name: score}; names given with prompts name their
    masks; query_inputs: a batch of one for a plug-in's query encoder, in pixels of the model's input. Per call, a
    picture may be {"image": ..., prompts}.
    Returns per picture a list of {"label", "score", "mask" (PIL "L", 0 or 255), "id", "box" {xmin, ymin, xmax, ymax,
    the last two exclusive}, "is_thing"}. A list gives a list, a generator a generator.
    A video task takes one video, in any form that `open_frames` takes: a folder, a file, or its frames; and as options
    also those of `VideoSession`; "video_object" takes the prompts of the first frame and the options of
    `ObjectSession`. It gives an iterator of such lists, one per frame, in which an id stays an object's.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Segment one picture, a list, or a generator of them, in any form that `read_picture` takes; or one video."""
        inputs = kwargs.pop("images", None) if inputs is None else inputs
        if inputs is None:
            raise ValueError("the pipeline was called without a picture: pass a path, a PIL image, an array or a list")
        if self._asks_video(kwargs):
            return self._answer_video(inputs, kwargs)
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

    def request(
        self,
        *,
        task: str | None = None,
        labels: Labels | None = None,
        seen_classes: SeenClasses | None = None,
        **options: Any,
    ) -> Request:
        """Check and complete what a call asks: the head, its classes and its options. The errors name the nearest."""
        head = load_head(task) if task is not None else self._default_head("learned")
        if head.spec.is_video:
            raise ValueError(
                f"task {head.spec.name!r} is for videos: call the pipeline with a video, or use a VideoSession"
            )
        return make_request(
            self.model,
            self._processor(),
            head,
            labels=labels,
            seen_classes=seen_classes,
            options=options,
            known_options=("task", "labels", "seen_classes", *PROMPTS),
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

    def _asks_video(self, kwargs: Mapping[str, Any]) -> bool:
        task = kwargs.get("task") or kwargs.get("subtask") or self._forward_params.get("task")
        return task is not None and load_head(task).spec.is_video

    def follow(self, video: Any, **kwargs: Any) -> Iterator[FrameResult]:
        """Like a call with a video task, but `FrameResult`s instead of pictures of masks, one per frame."""
        session, frames = self._start_video(video, kwargs)
        return session.stream(frames)

    def _answer_video(self, video: Any, kwargs: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """What is wrong with the call is said here, not at the first answer."""
        session, frames = self._start_video(video, kwargs)
        space = session.label_space if isinstance(session, VideoSession) else None
        return (_describe_all(result.segments, space) for result in session.stream(frames))

    def _start_video(self, video: Any, kwargs: Mapping[str, Any]) -> tuple[VideoSession | ObjectSession, Any]:
        """The session that a call asks for, and the frames to stream through it."""
        prompts, asked, _ = self._merged_parameters(kwargs)
        head = load_head(asked["task"])
        session: VideoSession | ObjectSession
        if head.spec.query_type == "prompt":
            session = self._object_session(prompts, asked)
        elif prompts:
            raise ValueError(f"task {head.spec.name!r} takes no {', '.join(prompts)}: it finds everything by itself")
        else:
            session = VideoSession(self.model, self._processor(), **asked)
        reader = open_frames(video, max_pixels=self._processor().image_processor.max_pixels)
        return session, reader if reader.is_repeatable else iter(reader)

    def _object_session(self, prompts: Mapping[str, Any], asked: Mapping[str, Any]) -> ObjectSession:
        """Follows what the prompts show in the first frame: [object] masks, boxes, or points with labels."""
        options = {name: value for name, value in asked.items() if name not in ("task", "multimask_output")}
        session = ObjectSession(self.model, self._processor(), **options)
        counts = {name: len(prompts[name]) for name in prompts}
        if len(set(counts.values())) != 1:
            raise ValueError(
                f"the prompts are for {counts or 'no'} objects: give the same number of masks, boxes or points for the "
                "first frame"
            )
        for number in range(next(iter(counts.values()))):
            mine = {name: prompts[name][number] for name in prompts}
            session.add_object(
                mask=mine.get("input_masks"),
                box=mine.get("input_boxes"),
                points=mine.get("input_points"),
                point_labels=mine.get("input_labels"),
            )
        return session

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
        if kwargs.get("threshold") is not None and not isinstance(kwargs["threshold"], Mapping):
            check_threshold(kwargs["threshold"])
        # For these None says "as usual"; for a head's own option it is a value, stronger than the checkpoint's.
        as_usual = ("task", "labels", "seen_classes", "threshold", *PROMPTS, QUERY_INPUTS)
        unset = [name for name in as_usual if kwargs.get(name) is None]
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
        several = {"multimask_output": bool(kwargs.pop("multimask_output", False))}
        request = self.request(**kwargs)
        for item in items:
            _check_prompts(request.head, item)
        answers: dict[int, _Answer] = {}
        for group in group_by_key([self._batch_key(item) for item in items]):
            results = self._segment_batch([items[index] for index in group], request, several)
            answers.update(zip(group, results, strict=True))
        return [answers[index] for index in range(len(items))]

    def _batch_key(self, item: Mapping[str, Any]) -> tuple[Any, ...]:
        """Items with equal keys may share a batch: same prompts in number, and same size where padding would matter."""
        if QUERY_INPUTS in item:  # only their encoder knows how to batch them
            return (id(item),)
        try:
            shapes = tuple(np.shape(item[name]) if name in item else None for name in PROMPTS if name != "input_masks")
            shapes += (len(item["input_masks"]) if "input_masks" in item else None,)
        except ValueError:  # ragged: the processor says what is wrong
            return (id(item),)
        if self.model.config.backbone_pads_safely:
            return shapes
        return (self._processor().image_processor.padded_size(item["picture"].shape[:2]), *shapes)

    def _segment_batch(
        self, items: list[dict[str, Any]], request: Request, several: Mapping[str, bool]
    ) -> list[_Answer]:
        processor, head = self._processor(), request.head
        prompts = {name: [item[name] for item in items] for name in PROMPTS if name in items[0]}
        inputs = processor([item["picture"] for item in items], **prompts)
        inputs.pop("class_embeds", None)
        sizes = [tuple(size) for size in inputs.pop("original_sizes").tolist()]
        asked = {"query_type": head.spec.query_type, QUERY_INPUTS: items[0].get(QUERY_INPUTS)}
        asked = self._ensure_tensor_on_device(asked, self.device)
        inputs = inputs.to(self.device)
        # Prompts and names stay float32: bfloat16 cannot tell pixel 1000 from 1004.
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        outputs = self.model(**inputs, **request.class_inputs(self.device), **asked, **several)
        results = request.answer(outputs.to_query_output(), sizes=sizes, prompts={**inputs, **several})
        return [_Answer(on_cpu(segments), request.label_space) for segments in results]

    def postprocess(self, answer: _Answer) -> list[dict[str, Any]]:
        """One dictionary per segment of one picture."""
        return _describe_all(answer.segments, answer.label_space)

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


def _describe_all(segments: Segments, space: LabelSpace | None) -> list[dict[str, Any]]:
    return [_describe(segments, index, space) for index in range(len(segments))]


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
