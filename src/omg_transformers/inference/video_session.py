"""A video of any length, frame by frame: results whose ids persist, in the memory of one clip."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import torch

from omg_transformers.inference.requests import make_request
from omg_transformers.inference.results import FrameResult, on_cpu
from omg_transformers.inference.tracking import QueryMemory, align_clip
from omg_transformers.inference.video_state import VideoState, model_fingerprint
from omg_transformers.inference.video_tracks import Tracks
from omg_transformers.labels import LabelSpace
from omg_transformers.plugins import load_head
from omg_transformers.processing.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from torch import Tensor

    from omg_transformers.inference.tracking import AlignedClip
    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.processing.processor import Labels, OMGSegProcessor
    from omg_transformers.structures import QueryOutput, Segments

    Frame = np.ndarray[Any, Any]

MODES = ("online", "offline")
# Clips whose class logits are averaged online: longer averages would hold on to what is long gone.
AVERAGED_CLIPS = 30


class VideoSession:
    """Follows everything in one video: `for result in session.stream(frames)`.

    task: a head of learned queries, such as "video_panoptic". labels: as for the processor. window: frames that the
    model sees at once; overlap: how many of them it has seen in the window before. mode: "online" answers each window
    at once, with classes averaged up to it; "offline" reads the whole video first and answers with the average of all.
    horizon: frames for which an object that is not seen keeps its id. options: the head's own.
    One session is one video. Its memory does not grow with the video, but for offline's packed masks.
    """

    def __init__(
        self,
        model: OMGSegModel,
        processor: OMGSegProcessor,
        task: str = "video_panoptic",
        labels: Labels | None = None,
        *,
        window: int = 1,
        overlap: int = 0,
        mode: str = "online",
        horizon: int = 30,
        **options: Any,
    ) -> None:
        _check_settings(window, overlap, mode, horizon)
        head = load_head(task)
        if head.spec.query_type != "learned":
            raise ValueError(
                f"task {task!r} answers {head.spec.query_type!r} queries: a VideoSession finds everything by itself; "
                "to follow given objects use ObjectSession"
            )
        self.model, self.processor = model, processor
        self.request = make_request(model, processor, head, labels=labels, options=options)
        space = self.request.label_space
        self.window, self.overlap, self.mode = window, overlap, mode
        settings = {
            "task": task,
            "labels": None if space is None else space.to_dict(),
            "window": window,
            "overlap": overlap,
            "mode": mode,
            "horizon": horizon,
            "options": options,
        }
        self._state = VideoState(settings, model_fingerprint(model))
        self._tracks = Tracks(horizon)

    @classmethod
    def restore(cls, model: OMGSegModel, processor: OMGSegProcessor, state: VideoState) -> Self:
        """Go on where `state` was taken: `stream` then wants the frames from `state.next_frame` on.

        ValueError when the state was made with another model.
        """
        fingerprint = model_fingerprint(model)
        if state.fingerprint != fingerprint:
            raise ValueError(
                f"the state was made with another model ({state.fingerprint}, this one is {fingerprint}): "
                "load the weights it was made with, in the same dtype, or start a new session"
            )
        settings = dict(state.settings)
        labels = settings.pop("labels")
        session = cls(
            model,
            processor,
            labels=None if labels is None else LabelSpace.from_dict(labels),
            **settings.pop("options"),
            **settings,
        )
        session._state = dataclasses.replace(state, memory=_moved(state.memory, model.device))
        session._tracks = Tracks.from_tensor(state.tracks, horizon=settings["horizon"], next_id=state.next_id)
        return session

    @property
    def label_space(self) -> LabelSpace | None:
        """The classes that results speak of; None for a task without."""
        return self.request.label_space

    @property
    def state(self) -> VideoState:
        """All that the session knows now, a snapshot: it does not change when the session goes on."""
        return dataclasses.replace(self._state, tracks=self._tracks.to_tensor(), next_id=self._tracks.next_id)

    def stream(self, frames: Iterable[Any]) -> Iterator[FrameResult]:
        """One result per frame, in order. frames: in any form that `read_picture` takes, all of one size.

        A stream that was left in the middle goes on with the next call; then frames are those from
        `state.next_frame` on. ValueError: no frame at all, or frames that differ in size.
        """
        yield from self._give()
        for picture in frames:
            self._read(picture)
            if len(self._state.frames) == self._wanted():
                self._answer_window()
                yield from self._give()
        if len(self._state.frames) > self._state.num_known:
            self._answer_window()
            yield from self._give()
        if self._state.next_frame == 0:
            raise ValueError("the video has no frame: check its path, or the filter before it")

    def _wanted(self) -> int:
        """Frames that make a window; all but the first have their overlap already."""
        return self.window

    def _read(self, picture: Any) -> None:
        state = self._state
        frame = read_picture(picture, max_pixels=self.processor.image_processor.max_pixels)
        size = (frame.shape[0], frame.shape[1])
        if state.frame_size is not None and size != state.frame_size:
            raise ValueError(
                f"frame {state.next_frame} is {size[1]} x {size[0]} but the video is {state.frame_size[1]} x "
                f"{state.frame_size[0]}: resize its frames to one size, or start a new session where it changes"
            )
        self._state = dataclasses.replace(
            state, next_frame=state.next_frame + 1, frame_size=size, frames=(*state.frames, frame)
        )

    def _give(self) -> Iterator[FrameResult]:
        while self._state.pending:
            result, *rest = self._state.pending
            self._state = dataclasses.replace(self._state, pending=tuple(rest), num_given=self._state.num_given + 1)
            yield result

    def _answer_window(self) -> None:
        state = self._state
        clip = align_clip(self._run(state.frames), state.memory, overlap=state.num_known)
        memory, answers = self._answer_online(clip, state.memory)
        new = state.frames[state.num_known :]
        first = state.next_frame - len(new)
        results = [FrameResult(first + place, answers[place], frame) for place, frame in enumerate(new)]
        kept = state.frames[len(state.frames) - self.overlap :] if self.overlap else ()
        self._state = dataclasses.replace(
            state, memory=memory, pending=tuple(results), frames=kept, num_known=len(kept)
        )

    @torch.no_grad()
    def _run(self, frames: Sequence[Frame]) -> QueryOutput:
        """The model's answer to one clip."""
        inputs = self.processor(videos=[frames]).to(self.model.device)
        output = self.model(
            pixel_values=inputs["pixel_values"].to(self.model.dtype),
            pixel_mask=inputs["pixel_mask"],
            class_embeds=self._class_embeds(),
        )
        return output.to_query_output()

    def _class_embeds(self) -> Tensor | None:
        embeds = self.request.class_embeds
        return None if embeds is None else embeds.to(self.model.device)

    def _answer_online(self, clip: AlignedClip, before: QueryMemory | None) -> tuple[QueryMemory, list[Segments]]:
        """The memory after a clip and the segments of each of its new frames."""
        frames = range(clip.frames.start, clip.frames.stop)
        num_queries = len(clip.permutation)
        device = clip.permutation.device
        is_live = self._tracks.live_queries(frames[0], num_queries).to(device)
        memory = clip.memory
        if before is not None:
            alone = align_clip(clip.output, None).memory
            # A query without an object averages nothing: what it finds next is new.
            memory = memory.with_rows(alone, ~is_live)
        found = [self._postprocess(clip.output, memory, place) for place in range(len(frames))]
        answers = [self._tracks.assign(segments, frame) for segments, frame in zip(found, frames, strict=True)]
        shown = torch.cat([segments.info["queries"] for segments in found])
        is_missing = is_live.clone()
        is_missing[shown[shown >= 0].to(device)] = False
        if before is not None:
            # An object out of sight is looked for as it was seen last.
            memory = memory.with_rows(before, is_missing)
        return memory.at_most(AVERAGED_CLIPS), answers

    def _postprocess(self, output: QueryOutput, memory: QueryMemory, place: int) -> Segments:
        """The segments of one frame of a clip, with the classes that `memory` tells."""
        classes, qualities = memory.class_logits, memory.iou_logits
        of_frame = dataclasses.replace(
            output,
            class_logits=None if classes is None else classes[None],
            mask_logits=output.mask_logits[:, :, place : place + 1],
            iou_logits=None if qualities is None else qualities[None],
            query_states=None,
        )
        space, size = self.request.label_space, self._state.frame_size
        assert size is not None
        (segments,) = self.request.head.postprocess(
            of_frame, sizes=[size], is_thing=space.is_thing if space is not None else (), **self.request.options
        )
        return on_cpu(segments)


def _check_settings(window: int, overlap: int, mode: str, horizon: int) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: expected one of {', '.join(map(repr, MODES))}")
    if window < 1:
        raise ValueError(f"window is {window}: expected at least 1 frame")
    if not 0 <= overlap < window:
        raise ValueError(f"overlap is {overlap}: expected 0 to {window - 1}, less than window ({window})")
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}: expected 0 or more frames")


def _moved(memory: QueryMemory | None, device: torch.device) -> QueryMemory | None:
    if memory is None:
        return None
    moved: dict[str, Any] = {name: part.to(device) for name, part in memory.tensors.items()}
    return dataclasses.replace(memory, **moved)
