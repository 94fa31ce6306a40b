"""A video of any length, frame by frame: results whose ids persist, in the memory of one clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch

from omg_transformers.inference.packed_masks import FrameSpool, pack_masks, unpack_masks
from omg_transformers.inference.requests import make_request
from omg_transformers.inference.results import FrameResult, check_frame_size, on_cpu
from omg_transformers.inference.state_files import model_fingerprint, require_fingerprint
from omg_transformers.inference.tracking import QueryMemory, align_clip, split_frames
from omg_transformers.inference.video_state import MaskGrid, VideoState
from omg_transformers.inference.video_tracks import Tracks
from omg_transformers.labels import LabelSpace
from omg_transformers.model.classifier import class_logits, fuse_open_vocabulary
from omg_transformers.plugins import load_head
from omg_transformers.processing.pictures import read_picture
from omg_transformers.structures import QueryOutput

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from omg_transformers.inference.requests import SeenClasses
    from omg_transformers.inference.tracking import AlignedClip
    from omg_transformers.model.backbones import OpenClipBackbone
    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.model.query_decoder import ImageFeatures
    from omg_transformers.processing.processor import Labels, OMGSegProcessor
    from omg_transformers.structures import Segments

    Frame = np.ndarray[Any, Any]

MODES = ("online", "offline")
# Clips whose class logits are averaged online: longer averages would hold on to what is long gone.
AVERAGED_CLIPS = 30


class VideoSession:
    """Follows everything in one video: `for result in session.stream(frames)`.

    task: a head of learned queries, such as "video_panoptic". labels: as for the processor. window: frames that the
    model sees at once; overlap: how many of them it has seen in the window before. mode: "online" answers each window
    at once, with classes averaged up to it; "offline" reads the whole video first and answers with the average of all.
    horizon: frames for which an object that is not seen keeps its id. seen_classes: which names were trained, as in the
    pipeline: fuses in the opinion of a CLIP backbone, summed up over the video. options: the head's own.
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
        seen_classes: SeenClasses | None = None,
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
        self.request = make_request(model, processor, head, labels=labels, seen_classes=seen_classes, options=options)
        self.window, self.overlap, self.mode = window, overlap, mode
        settings = {
            "task": task,
            **self._names(),
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
        require_fingerprint(model, state.fingerprint)
        settings = dict(state.settings)
        labels = settings.pop("labels")
        session = cls(
            model,
            processor,
            labels=None if labels is None else LabelSpace.from_dict(labels),
            **settings.pop("options"),
            **settings,
        )
        memory = state.memory
        session._state = dataclasses.replace(state, memory=None if memory is None else memory.to(model.device))
        session._tracks = Tracks.from_tensor(state.tracks, horizon=settings["horizon"], next_id=state.next_id)
        return session

    @property
    def label_space(self) -> LabelSpace | None:
        """The classes that results speak of; None for a task without."""
        return self.request.label_space

    @property
    def seen_classes(self) -> list[bool] | None:
        """Per name whether it was trained; None: the CLIP backbone is not asked."""
        seen = self.request.seen_classes
        return None if seen is None else list(seen)

    def set_labels(self, labels: Labels | None, *, seen_classes: SeenClasses | None = None, **options: Any) -> int:
        """Ask for other names from here on; returns the index of the first frame that is answered with them.

        Objects and stuff of names that stay keep their ids; classes are averaged anew. Results of a window that is
        answered already, but not all given out, speak of the old names. seen_classes: as for the session, needed again
        if it was given there. options: the head's, over those of the session, such as thresholds of the new names.
        ValueError: the session is offline and has begun to read.
        """
        state = self._state
        if self.mode == "offline" and (state.next_frame or state.is_read):
            raise ValueError(
                "an offline session averages its names over the whole video: call set_labels before its first frame, "
                "or start a new session"
            )
        if state.memory is not None and (seen_classes is None) != (self.seen_classes is None):
            raise ValueError(
                "seen_classes must be given in the middle of a video if the session began with it, else not"
            )
        options = {**state.settings["options"], **options}
        before, head = self.label_space, self.request.head
        self.request = make_request(
            self.model, self.processor, head, labels=labels, seen_classes=seen_classes, options=options
        )
        space = self.label_space
        settings = {**state.settings, **self._names(), "options": options}
        memory = state.memory
        if memory is not None and before is not None and space is not None:
            memory = memory.without_names(len(space))
            places = {label: space.find(name) for label, name in enumerate(before.names)}
            self._tracks.rename({label: place for label, place in places.items() if place is not None})
        self._state = dataclasses.replace(state, settings=settings, memory=memory)
        return state.next_frame - len(state.frames) + state.num_known

    def _names(self) -> dict[str, Any]:
        """The names as the state's settings hold them."""
        space = self.label_space
        return {"labels": None if space is None else space.to_dict(), "seen_classes": self.seen_classes}

    @property
    def state(self) -> VideoState:
        """All that the session knows now, a snapshot: it does not change when the session goes on."""
        return dataclasses.replace(self._state, tracks=self._tracks.to_tensor(), next_id=self._tracks.next_id)

    def stream(self, frames: Iterable[Any]) -> Iterator[FrameResult]:
        """One result per frame, in order. frames: in any form that `read_picture` takes, all of one size.

        A stream that was left in the middle goes on with the next call; then frames are those from
        `state.next_frame` on. Offline, frames that can be read twice are (a list, a reader); those of a one-way
        iterator are kept in a temporary file. ValueError: no frame at all, or frames that differ in size.
        """
        if isinstance(frames, str | bytes | Path):
            raise TypeError(f"frames is {str(frames)[:100]!r}: give the frames themselves, such as open_frames(path)")
        yield from self._give()
        if self.mode == "offline":
            yield from self._stream_offline(frames)
            return
        for picture in frames:
            self._read(picture)
            if len(self._state.frames) == self.window:
                self._answer_window()
                yield from self._give()
        if len(self._state.frames) > self._state.num_known:
            self._answer_window()
            yield from self._give()
        self._require_frames()

    def _require_frames(self) -> None:
        if self._state.frame_size is None:
            raise ValueError("the video has no frame: check its path, or the filter before it")

    def _stream_offline(self, frames: Iterable[Any]) -> Iterator[FrameResult]:
        """Read the whole video, then answer it."""
        if self._state.is_read and self._state.num_given == len(self._state.masks):
            raise ValueError("this video has been answered: start a new session for another one")
        if not self._state.is_read:
            frames = self._read_all(frames)
        for picture in frames:
            index = self._state.next_frame
            if index == len(self._state.masks):
                break
            self._read(picture)
            (frame,) = self._state.frames
            self._state = dataclasses.replace(self._state, frames=(), num_given=self._state.num_given + 1)
            yield FrameResult(index, self._answer_packed(index), frame)
        if (given := self._state.num_given) < len(self._state.masks):
            raise ValueError(
                f"the frames end after {given} of {len(self._state.masks)}: give those from `state.next_frame` on"
            )

    def _read_all(self, frames: Iterable[Any]) -> Iterable[Any]:
        """Run the model over all windows and return the frames for a second reading, from the first on."""
        self._state = VideoState(self._state.settings, self._state.fingerprint)
        spool = FrameSpool() if iter(frames) is frames else None
        masks: list[bytes] = []
        ends = _window_ends(frames, self.window, self.overlap)
        end = next(ends)
        for picture in frames:
            self._read(picture)
            if spool is not None:
                spool.append(self._state.frames[-1])
            if self._state.next_frame == end:
                masks += self._pack_window()
                end = next(ends)
        if len(self._state.frames) > self._state.num_known:
            masks += self._pack_window()
        self._require_frames()
        self._state = dataclasses.replace(
            self._state, masks=tuple(masks), is_read=True, next_frame=0, frames=(), num_known=0
        )
        return frames if spool is None else spool

    def _pack_window(self) -> list[bytes]:
        """Run the model over a window; its new frames' masks, packed. Queries are matched as in the original."""
        state = self._state
        output, features = self._run(state.frames)
        clip = align_clip(output, state.memory, overlap=state.num_known, clip_features=features)
        output = clip.output
        masks = output.mask_logits[0]
        grid = MaskGrid(
            (masks.shape[0], masks.shape[2], masks.shape[3]),
            output.input_size,
            None if output.content_sizes is None else output.content_sizes[0],
        )
        self._state = dataclasses.replace(self._after_window(), memory=clip.memory, grid=grid)
        return [pack_masks(masks[:, place]) for place in range(masks.shape[1])]

    def _answer_packed(self, index: int) -> Segments:
        """The segments of one frame, with the classes of the whole video."""
        memory, grid = self._state.memory, self._state.grid
        assert memory is not None
        assert grid is not None
        masks = unpack_masks(self._state.masks[index], grid.shape).to(self.model.device)
        content = None if grid.content_size is None else (grid.content_size,)
        output = QueryOutput(None, masks[None, :, None], input_size=grid.input_size, content_sizes=content)
        return self._tracks.assign(self._postprocess(output, memory), index)

    def _read(self, picture: Any) -> None:
        state = self._state
        frame = read_picture(picture, max_pixels=self.processor.image_processor.max_pixels)
        size = (frame.shape[0], frame.shape[1])
        check_frame_size(size, state.frame_size, state.next_frame)
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
        output, features = self._run(state.frames)
        clip = align_clip(output, state.memory, overlap=state.num_known, clip_features=features)
        memory, answers = self._answer_online(clip, state.memory)
        new = state.frames[state.num_known :]
        first = state.next_frame - len(new)
        results = [FrameResult(first + place, answers[place], frame) for place, frame in enumerate(new)]
        self._state = dataclasses.replace(self._after_window(), memory=memory, pending=tuple(results))

    def _after_window(self) -> VideoState:
        """The state with only those frames that the next window knows."""
        frames = self._state.frames
        kept = frames[max(0, len(frames) - self.overlap) :]
        return dataclasses.replace(self._state, frames=kept, num_known=len(kept))

    @torch.no_grad()
    def _run(self, frames: Sequence[Frame]) -> tuple[QueryOutput, ImageFeatures | None]:
        """The model's answer to one clip, and its features if the CLIP backbone is asked, too."""
        inputs = self.processor(videos=[frames]).to(self.model.device)
        pixels = inputs["pixel_values"].to(self.model.dtype)
        features = self.model.get_image_features(pixels, inputs["pixel_mask"])
        output = self.model(image_features=features, class_embeds=self._class_embeds()).to_query_output()
        return output, features if self.seen_classes is not None else None

    def _class_embeds(self) -> Tensor | None:
        embeds = self.request.class_embeds
        return None if embeds is None else embeds.to(self.model.device)

    def _answer_online(self, clip: AlignedClip, before: QueryMemory | None) -> tuple[QueryMemory, list[Segments]]:
        """The memory after a clip and the segments of each of its new frames."""
        memory, alone = clip.memory, align_clip(clip.output, None).memory
        if before is not None and before.class_logits is not None:
            # A query that saw nothing has nothing to average: what it finds next is new.
            is_idle = before.class_logits.argmax(-1) == before.class_logits.shape[-1] - 1
            memory = memory.with_rows(_with_clip_sums(alone, memory, before), is_idle)
        asked = _with_own_void(memory, alone)
        frames = range(clip.frames.start, clip.frames.stop)
        masks = clip.output.mask_logits
        found = [
            self._postprocess(dataclasses.replace(clip.output, mask_logits=masks[:, :, place : place + 1]), asked)
            for place in range(len(frames))
        ]
        is_live = self._tracks.live_queries(frames[0], len(clip.permutation))
        answers = [self._tracks.assign(segments, frame) for segments, frame in zip(found, frames, strict=True)]
        if before is not None:
            for segments in found:
                queries = segments.info.get("queries", torch.zeros(0, dtype=torch.int64))
                is_live[queries[queries >= 0]] = False
            # An object out of sight is looked for as it was seen last.
            memory = memory.with_rows(before, is_live.to(masks.device))
        return memory.at_most(AVERAGED_CLIPS), answers

    @torch.no_grad()
    def _fused(self, memory: QueryMemory) -> Tensor | None:
        """The classes that `memory` tells (Q, K + 1), with the opinion of the CLIP backbone if it is asked."""
        means, embeds = memory.class_logits, self._class_embeds()
        sums, areas = memory.clip_feature_sum, memory.clip_feature_area
        if self.seen_classes is None or means is None or embeds is None or sums is None or areas is None:
            return means
        config, backbone = self.model.config, cast("OpenClipBackbone", self.model.backbone)
        pooled = backbone.embed_pooled((sums / (areas[:, None] + 1e-8))[None])
        return fuse_open_vocabulary(
            means[None],
            class_logits(pooled, embeds, config.logit_scale),
            torch.tensor(self.seen_classes, device=means.device),
            (areas > 0)[None],
            seen_exponent=config.seen_exponent,
            unseen_exponent=config.unseen_exponent,
        )[0]

    def _postprocess(self, output: QueryOutput, memory: QueryMemory) -> Segments:
        """The segments of one frame, with the classes that `memory` tells."""
        classes, qualities = self._fused(memory), memory.iou_logits
        averaged = dataclasses.replace(
            output,
            class_logits=None if classes is None else classes[None],
            iou_logits=None if qualities is None else qualities[None],
            query_states=None,
        )
        size = self._state.frame_size
        assert size is not None
        (segments,) = self.request.answer(averaged, sizes=[size])
        return on_cpu(segments)


def _with_clip_sums(alone: QueryMemory, after: QueryMemory, before: QueryMemory) -> QueryMemory:
    """The memory of one clip alone, with what the CLIP backbone saw in just this clip."""
    sums, areas = before.clip_feature_sum, before.clip_feature_area
    if sums is None or areas is None or after.clip_feature_sum is None or after.clip_feature_area is None:
        return alone
    return dataclasses.replace(
        alone, clip_feature_sum=after.clip_feature_sum - sums, clip_feature_area=after.clip_feature_area - areas
    )


def _with_own_void(memory: QueryMemory, alone: QueryMemory) -> QueryMemory:
    """The mean classes of `memory`, but whether there is an object at all as this clip `alone` says."""
    means, own = memory.class_logits, alone.class_logits
    if means is None or own is None:
        return memory
    void = own.log_softmax(-1)[:, -1:]
    rest = torch.log1p(-void.exp().clamp(max=1 - 1e-6))
    logs = torch.cat([means[:, :-1].log_softmax(-1) + rest, void], dim=-1)
    return dataclasses.replace(memory, class_logit_sum=logs * memory.counts[:, None])


def _window_ends(frames: Iterable[Any], window: int, overlap: int) -> Iterator[int]:
    """How many frames are read when each window is full. A video of known length is split as the original does."""
    if isinstance(frames, Sized) and len(frames):
        yield from (clip.stop for clip in split_frames(len(frames), window, overlap))
    else:
        yield from count(window, window - overlap)
    yield 0


def _check_settings(window: int, overlap: int, mode: str, horizon: int) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: expected one of {', '.join(map(repr, MODES))}")
    if window < 1:
        raise ValueError(f"window is {window}: expected at least 1 frame")
    if not 0 <= overlap < window:
        raise ValueError(f"overlap is {overlap}: expected 0 to {window - 1}, less than window ({window})")
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}: expected 0 or more frames")
