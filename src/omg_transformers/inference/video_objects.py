"""Given objects followed through a video: by mask, box or points, added, corrected and removed on any frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.nn import functional

from omg_transformers.inference.label_propagation import (
    LabelledFrame,
    Propagation,
    cell_distances,
    cell_shares,
    propagate_labels,
    to_labels,
)
from omg_transformers.inference.object_prompts import ObjectPrompt, mask_of
from omg_transformers.inference.object_state import KnownFrame, ObjectState
from omg_transformers.inference.results import FrameResult, check_frame_size
from omg_transformers.inference.state_files import model_fingerprint, require_fingerprint
from omg_transformers.model.padding import Content
from omg_transformers.ops.masks import encode_mask
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.processing.pictures import read_picture
from omg_transformers.structures import Segments

if TYPE_CHECKING:
    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.processing.processor import OMGSegProcessor

    Frame = np.ndarray[Any, Any]

# Cells are compared at this stride of the input.
STRIDE = 8
# How much the backbone's finest map counts beside the mask features: it sees edges and colours.
FINE_WEIGHT = 0.25
# Less than this many cells in all are no sight of an object, unless it was about as small when it was given.
LEAST_CELLS = 2.0
LEAST_SHARE = 0.25
# Frames in which objects were given that are remembered, unless one is the only sight of an object.
MAX_ANCHORS = 6


class ObjectSession:
    """Follows the objects it is given: `session.add_object(mask=...)`, then `for result in session.stream(frames)`.

    resolution: shorter side of the pictures that the model sees. recent_frames: how many of the last frames objects
    are looked up in, beside the frames that they were given in. keep_frames: how many of the last frames can still be
    corrected and propagated from (the last one always can). propagation: how labels are carried.
    Results have one segment per object, in the order in which they were given; where it is not seen its mask is None.
    """

    def __init__(
        self,
        model: OMGSegModel,
        processor: OMGSegProcessor,
        *,
        resolution: int = 288,
        recent_frames: int = 3,
        keep_frames: int = 1,
        propagation: Propagation | None = None,
    ) -> None:
        for name, value in (("resolution", resolution), ("recent_frames", recent_frames), ("keep_frames", keep_frames)):
            if value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        self.model, self.processor = model, processor
        self.resolution, self.recent_frames, self.keep_frames = resolution, recent_frames, keep_frames
        self.propagation = propagation or Propagation()
        settings = {
            "resolution": resolution,
            "recent_frames": recent_frames,
            "keep_frames": keep_frames,
            "propagation": dataclasses.asdict(self.propagation),
        }
        self._state = ObjectState(settings, model_fingerprint(model))
        self._distances: Tensor | None = None

    @classmethod
    def restore(cls, model: OMGSegModel, processor: OMGSegProcessor, state: ObjectState) -> Self:
        """Go on where `state` was taken: `stream` then wants the frames from `state.next_frame` on.

        ValueError when the state was made with another model.
        """
        require_fingerprint(model, state.fingerprint)
        settings = {**state.settings, "propagation": Propagation(**state.settings["propagation"])}
        session = cls(model, processor, **settings)
        session._state = state.to(model.device)
        return session

    @property
    def state(self) -> ObjectState:
        """All that the session knows now; it does not change when the session goes on."""
        return self._state

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Of the objects that are followed, in the order in which they were given."""
        return self._state.ids

    def add_object(
        self,
        *,
        mask: Any = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        point_labels: Sequence[int] | None = None,
        object_id: int | None = None,
        frame: int | None = None,
    ) -> int:
        """Follow one more object from a frame on; returns its id.

        Exactly one of mask (H, W), box (x1, y1, x2, y2) and points [[x, y], ..] (with point_labels, 1 inside, 0
        outside), in pixels of the frame. frame: its index: the last one read, a kept one, or one to come; None: the
        last one read, before the first frame that one.
        """
        ids = self._state.ids
        number = max((0, *ids)) + 1 if object_id is None else int(object_id)
        if number in ids or number < 1:
            raise ValueError(
                f"object_id is {number}: " + ("it is followed already, use correct_object" if number in ids else "> 0")
            )
        self._ask(ObjectPrompt.of(number, mask=mask, box=box, points=points, point_labels=point_labels), frame)
        self._state = dataclasses.replace(self._state, ids=(*ids, number))
        return number

    def correct_object(
        self,
        object_id: int,
        *,
        mask: Any = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        point_labels: Sequence[int] | None = None,
        frame: int | None = None,
    ) -> None:
        """Say anew where an object is in a frame; arguments as for `add_object`. Frames to come follow it from there.

        LookupError: there is no such object.
        """
        self._require(object_id)
        self._ask(ObjectPrompt.of(object_id, mask=mask, box=box, points=points, point_labels=point_labels), frame)

    def remove_object(self, object_id: int) -> None:
        """Follow an object no longer. LookupError: there is no such object."""
        self._require(object_id)
        state = self._state
        self._state = dataclasses.replace(
            state,
            ids=tuple(number for number in state.ids if number != object_id),
            prompts=tuple(entry for entry in state.prompts if entry[1].object_id != object_id),
            anchors=tuple(anchor.without(object_id) for anchor in state.anchors if set(anchor.ids) - {object_id}),
            frames=tuple(KnownFrame(known.labelled.without(object_id), known.picture) for known in state.frames),
        )

    def stream(self, frames: Iterable[Any]) -> Iterator[FrameResult]:
        """One result per frame, in order. frames: in any form that `read_picture` takes, all of one size.

        ValueError: no frame at all, frames that differ in size, or no object to follow.
        """
        for picture in frames:
            if not self._state.ids:
                raise ValueError("there is no object to follow: call add_object with a mask, a box or points first")
            yield self._answer(self._read(picture))
        if self._state.frame_size is None:
            raise ValueError("the video has no frame: check its path, or the filter before it")

    def propagate(self, start: int, *, reverse: bool = False) -> Iterator[FrameResult]:
        """New results for the kept frames after `start` (before it with `reverse`), from where objects are in it.

        To be used after a correction. LookupError: frame `start` is not kept.
        """
        place = self._place_of(start)
        frames = list(self._state.frames)
        path = range(place - 1, -1, -1) if reverse else range(place + 1, len(frames))
        recent = [frames[place].labelled]
        for step in path:
            known = frames[step]
            if known.picture is None:
                return
            labelled = known.labelled
            shares = self._with_given(self._shares(labelled.features, recent[-self.recent_frames :]), labelled.index)
            recent.append(self._labelled(labelled.index, labelled.features, shares))
            frames[step] = KnownFrame(recent[-1], known.picture)
            self._state = dataclasses.replace(self._state, frames=tuple(frames))
            yield self._result(labelled.index, known.picture, shares, {})

    def _require(self, object_id: int) -> None:
        if object_id not in self._state.ids:
            known = ", ".join(map(str, self._state.ids)) or "none"
            raise LookupError(f"there is no object {object_id}; followed are: {known}")

    def _place_of(self, index: int) -> int:
        """Where a frame that can be corrected is among the last ones."""
        places = {
            known.labelled.index: place for place, known in enumerate(self._state.frames) if known.picture is not None
        }
        if index not in places:
            raise LookupError(
                f"frame {index} is not kept; kept are: {', '.join(map(str, places)) or 'none'}. "
                "keep_frames says how many of the last frames can be corrected and propagated from"
            )
        return places[index]

    def _ask(self, prompt: ObjectPrompt, frame: int | None) -> None:
        """Answer a prompt at once if its frame is known, else when it comes."""
        state = self._state
        index = max(0, state.next_frame - 1) if frame is None else frame
        if index >= state.next_frame:
            if prompt.mask is not None and state.frame_size not in (None, prompt.mask.shape):
                mask_of(prompt, np.zeros((*(state.frame_size or ()), 3), np.uint8), self.model, self.processor)
            self._state = dataclasses.replace(state, prompts=(*state.prompts, (index, prompt)))
            return
        place = self._place_of(index)
        known = state.frames[place]
        assert known.picture is not None
        mask = mask_of(prompt, known.picture, self.model, self.processor)
        labels = self._labels_of([mask])
        # What was believed of the object in other frames was made without this: it has no say any more.
        frames = [KnownFrame(other.labelled.without(prompt.object_id), other.picture) for other in state.frames]
        frames[place] = KnownFrame(known.labelled.with_objects([prompt.object_id], labels), known.picture)
        self._state = dataclasses.replace(
            state, frames=tuple(frames), anchors=self._anchors_with(known.labelled, [prompt.object_id], labels)
        )

    def _anchors_with(self, frame: LabelledFrame, ids: Sequence[int], labels: Tensor) -> tuple[LabelledFrame, ...]:
        """The frames in which objects were given, with one more or with more in one of them."""
        others = [anchor for anchor in self._state.anchors if anchor.index != frame.index]
        same = [anchor for anchor in self._state.anchors if anchor.index == frame.index]
        if same:
            return (*others, same[0].with_objects(ids, labels))
        # Of corrections of the same objects the latest count; the first sight of an object always does.
        while len(others) >= MAX_ANCHORS:
            spare = [a for a in others[1:] if all(any(n in b.ids for b in others if b is not a) for n in a.ids)]
            if not spare:
                break
            others.remove(spare[0])
        return (*others, LabelledFrame(frame.index, frame.features, labels, tuple(ids), is_anchor=True))

    def _labels_of(self, masks: Sequence[Tensor]) -> Tensor:
        """(O, H, W) bool masks of a frame as labels of its cells."""
        return to_labels(cell_shares(torch.stack(list(masks)), self._grid())).to(self.model.device)

    def _answer(self, frame: Frame) -> FrameResult:
        state = self._state
        index = state.next_frame - 1
        features = self._features(frame)
        recent = [known.labelled for known in state.frames[-self.recent_frames :]]
        shares = self._shares(features, recent)
        due = [prompt for asked, prompt in state.prompts if asked == index]
        given = {prompt.object_id: mask_of(prompt, frame, self.model, self.processor) for prompt in due}
        if given:
            blank = LabelledFrame(index, features, torch.zeros((0, features.shape[1])), ())
            anchors = self._anchors_with(blank, list(given), self._labels_of(list(given.values())))
            prompts = tuple(entry for entry in state.prompts if entry[0] != index)
            state = self._state = dataclasses.replace(state, anchors=anchors, prompts=prompts)
            shares = self._with_given(shares, index)
        labelled = self._labelled(index, features, shares)
        frames = [*state.frames, KnownFrame(labelled, frame)][-max(self.keep_frames, self.recent_frames) :]
        oldest = len(frames) - self.keep_frames
        frames = [KnownFrame(known.labelled, None) if n < oldest else known for n, known in enumerate(frames)]
        self._state = dataclasses.replace(state, frames=tuple(frames))
        return self._result(index, frame, shares, given)

    def _read(self, picture: Any) -> Frame:
        state = self._state
        frame = read_picture(picture, max_pixels=self.processor.image_processor.max_pixels)
        size = (frame.shape[0], frame.shape[1])
        check_frame_size(size, state.frame_size, state.next_frame)
        self._state = dataclasses.replace(state, next_frame=state.next_frame + 1, frame_size=size)
        return frame

    def _input_content(self) -> tuple[int, int]:
        """(height, width) of a frame as the backbone sees it, without padding."""
        assert self._state.frame_size is not None
        edges = {"shortest_edge": self.resolution, "longest_edge": 2 * self.resolution}
        return self.processor.image_processor.resized_size(self._state.frame_size, edges)

    def _grid(self) -> tuple[int, int]:
        height, width = self._input_content()
        return -(-height // STRIDE), -(-width // STRIDE)

    @torch.no_grad()
    def _features(self, frame: Frame) -> Tensor:
        """(C, N) float16: what each cell looks like, a unit vector."""
        edges = {"shortest_edge": self.resolution, "longest_edge": 2 * self.resolution}
        inputs = self.processor.image_processor([frame], size=edges).to(self.model.device)
        pixels = inputs["pixel_values"].to(self.model.dtype)
        size = (pixels.shape[-2], pixels.shape[-1])
        content = Content.from_pixel_mask(inputs["pixel_mask"], size)
        maps = self.model.backbone(pixels, content)
        mask_features, _ = self.model.pixel_decoder(maps, content)
        height, width = self._grid()
        parts = []
        for features, weight in ((mask_features, 1.0), (maps[0], FINE_WEIGHT)):
            cells = functional.interpolate(features.float(), size=(size[0] // STRIDE, size[1] // STRIDE), mode="area")
            cells = cells[0, :, :height, :width]
            # Without what all cells have in common, cosines tell more.
            parts.append(weight * functional.normalize(cells - cells.mean((1, 2), keepdim=True), dim=0))
        return functional.normalize(torch.cat(parts).flatten(1), dim=0).half()

    def _labelled(self, index: int, features: Tensor, shares: Tensor) -> LabelledFrame:
        """What to remember of a frame; an object that was given nowhere yet is not known in it."""
        seen = {number for anchor in self._state.anchors for number in anchor.ids}
        rows = [row for row, number in enumerate(self._state.ids) if number in seen]
        ids = tuple(self._state.ids[row] for row in rows)
        return LabelledFrame(index, features, to_labels(shares[rows]), ids)

    def _shares(self, features: Tensor, recent: Sequence[LabelledFrame]) -> Tensor:
        """(O, N): what the anchors and the recent frames say of a new one."""
        memory = [*self._state.anchors, *recent]
        ids = self._state.ids
        if not memory:
            return torch.zeros((len(ids), features.shape[1]), device=features.device)
        if self._distances is None:
            self._distances = cell_distances(self._grid()).to(features.device)
        return propagate_labels(features, memory, ids, self._distances, self.propagation)

    def _with_given(self, shares: Tensor, index: int) -> Tensor:
        """Shares (O, N) of a frame, with those of objects that were given in it as they were given."""
        for anchor in self._state.anchors:
            if anchor.index == index:
                shares = shares.clone()
                for number, labels in zip(anchor.ids, anchor.labels, strict=True):
                    shares[self._state.ids.index(number)] = labels.float() / 255
        return shares

    def _least_cells(self, object_id: int) -> float:
        areas = [
            float(labels.float().sum()) / 255
            for anchor in self._state.anchors
            for number, labels in zip(anchor.ids, anchor.labels, strict=True)
            if number == object_id
        ]
        return min([LEAST_CELLS, *(LEAST_SHARE * area for area in areas)])

    def _result(self, index: int, frame: Frame, shares: Tensor, given: dict[int, Tensor]) -> FrameResult:
        """The masks (O of them) at the frame's own size; each pixel belongs to one object or to none."""
        size = (frame.shape[0], frame.shape[1])
        height, width = self._grid()
        resizer = MaskResizer(
            (height, width),
            size,
            input_size=(height * STRIDE, width * STRIDE),
            content_size=self._input_content(),
            device=shares.device,
        )
        ids = self._state.ids
        full = resizer.resize(shares.unflatten(1, (height, width)))
        background = (1 - full.sum(0)).clamp(min=0)
        best, winner = full.max(0) if ids else (background, background)
        rles, scores = [], []
        for place, number in enumerate(ids):
            is_seen = number in given or float(shares[place].sum()) >= self._least_cells(number)
            mask = given.get(number, ((winner == place) & (best > background) & is_seen).cpu())
            rles.append((encode_mask(mask) if mask.any() else None,))
            scores.append(float(full[place].cpu()[mask].mean()) if mask.any() else 0.0)
        segments = Segments(
            size,
            torch.tensor(ids, dtype=torch.int64),
            torch.full((len(ids),), -1),
            torch.tensor(scores, dtype=torch.float32).clamp(0, 1),
            rles=tuple(rles),
        )
        return FrameResult(index, segments, frame)
