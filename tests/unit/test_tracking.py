"""Queries keep their order through a video, whatever order each clip gives them, in the memory of one clip."""

from __future__ import annotations

import gc
import pickle
import weakref
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from omg_transformers.inference.tracking import (
    align_clip,
    match_masks,
    match_queries,
    split_frames,
    track_clips,
)
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.structures import QueryOutput

NUM_QUERIES, NUM_CLASSES, WIDTH = 6, 3, 8


def output_of(frames=2, seed=0, queries=NUM_QUERIES, classes=NUM_CLASSES):
    generator = torch.Generator().manual_seed(seed)
    states = torch.eye(queries, WIDTH)[None] + 0.1 * torch.randn((1, queries, WIDTH), generator=generator)
    return QueryOutput(
        class_logits=torch.randn((1, queries, classes + 1), generator=generator),
        mask_logits=torch.randn((1, queries, frames, 4, 5), generator=generator),
        iou_logits=torch.randn((1, queries), generator=generator),
        query_states=states,
    )


def shuffled(output, order):
    return replace(
        output,
        class_logits=output.class_logits[:, order],
        mask_logits=output.mask_logits[:, order],
        iou_logits=output.iou_logits[:, order],
        query_states=output.query_states[:, order],
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return OMGSegModel(OMGSegConfig.tiny()).eval()


@pytest.fixture(scope="module")
def names(model):
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn((4, 2, model.config.text_dim), generator=generator), dim=-1)


def frames_of(count, seed=2):
    return torch.randn((count, 3, 32, 64), generator=torch.Generator().manual_seed(seed))


class TestSplitFrames:
    def test_every_frame_is_new_in_just_one_clip(self):
        cases = [(total, size, overlap) for total in range(1, 40) for size in range(1, 8) for overlap in range(size)]
        assert len(cases) == 39 * 28
        for total, size, overlap in cases:
            clips = split_frames(total, size, overlap)
            new = [frame for i, clip in enumerate(clips) for frame in range(clip.start + overlap * (i > 0), clip.stop)]
            assert new == list(range(total)), (total, size, overlap)
            assert all(0 < clip.stop - clip.start <= size for clip in clips) or total <= overlap

    def test_missing_frames_are_spread_over_the_last_clips(self):
        assert [clip.stop for clip in split_frames(16, 6)] == [6, 11, 16]

    def test_too_many_missing_frames_shorten_only_the_last_clip(self):
        assert [clip.stop for clip in split_frames(8, 6)] == [6, 8]

    def test_a_video_no_longer_than_the_overlap_is_one_clip(self):
        assert split_frames(2, 6, 2) == [slice(0, 2)]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 3), "num_frames is 0"),
            ((5, 0), "clip_size is 0"),
            ((5, 3, 3), r"overlap is 3: expected 0 to 2, less than clip_size \(3\)"),
            ((5, 3, -1), "overlap is -1"),
        ],
    )
    def test_impossible_splits_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            split_frames(*arguments)


class TestMatchQueries:
    def test_a_shuffle_is_undone(self):
        states = torch.randn((20, 16), generator=torch.Generator().manual_seed(0))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        assert torch.equal(states[order][match_queries(states, states[order])], states)

    def test_length_of_states_does_not_count(self):
        states = torch.randn((20, 16), generator=torch.Generator().manual_seed(0))
        lengths = torch.linspace(0.01, 100, 20)[:, None]
        assert torch.equal(match_queries(states, states * lengths), torch.arange(20))

    def test_the_total_counts_not_the_best_pair(self):
        """Greedily, the first would take its nearest and leave the second with its opposite."""
        previous = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
        current = torch.tensor([[0.95, 0.3], [0.9, -0.4]])
        assert match_queries(previous, current).tolist() == [1, 0]

    def test_half_precision_is_matched_in_float32(self):
        states = torch.randn((20, 16), generator=torch.Generator().manual_seed(0)).bfloat16()
        assert torch.equal(match_queries(states, states.flip(0)), torch.arange(20).flip(0))

    def test_states_of_another_model_are_refused(self):
        with pytest.raises(ValueError, match=r"\(5, 8\) cannot continue \(6, 8\)"):
            match_queries(torch.zeros(6, 8), torch.zeros(5, 8))

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="NaN"):
            match_queries(torch.zeros(6, 8), torch.full((6, 8), torch.nan))


class TestMatchMasks:
    def test_each_mask_gets_a_candidate_of_its_own(self):
        masks = torch.zeros((2, 4, 6), dtype=torch.bool)
        masks[0, :, :3], masks[1, :, 3:] = True, True
        candidates = torch.stack([masks[1], masks.any(0), masks[0]])
        assert match_masks(candidates, masks).tolist() == [2, 0]

    def test_masks_without_a_candidate_get_none(self):
        masks = torch.zeros((2, 4, 6), dtype=torch.bool)
        masks[0, :, :3], masks[1, :, 3:] = True, True
        assert match_masks(masks[1:], masks).tolist() == [-1, 0]


class TestAlignClip:
    def test_queries_come_in_the_order_of_the_first_clip(self):
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        first, second = output_of(seed=0), output_of(seed=1)
        memory = align_clip(first, None).memory
        aligned = align_clip(shuffled(second, order), memory)
        assert torch.equal(order[aligned.permutation], torch.arange(NUM_QUERIES))
        for name in ("class_logits", "mask_logits", "iou_logits", "query_states"):
            assert torch.equal(getattr(aligned.output, name), getattr(second, name)), name

    def test_memory_holds_means_over_clips(self):
        outputs = [output_of(seed=seed) for seed in range(3)]
        memory = None
        for output in outputs:
            memory = align_clip(output, memory).memory
        assert memory.num_clips == 3
        torch.testing.assert_close(memory.class_logits, torch.cat([part.class_logits for part in outputs]).mean(0))
        torch.testing.assert_close(memory.iou_logits, torch.cat([part.iou_logits for part in outputs]).mean(0))

    def test_frames_of_the_overlap_are_dropped(self):
        first, second = output_of(frames=4, seed=0), output_of(frames=3, seed=1)
        start = align_clip(first, None, overlap=2)
        following = align_clip(second, start.memory, overlap=2)
        assert (start.frames, following.frames) == (slice(0, 4), slice(4, 5))
        assert torch.equal(following.output.mask_logits, second.mask_logits[:, :, 2:])

    def test_the_output_is_not_written(self):
        output = output_of()
        before = pickle.dumps(output)
        memory = align_clip(output, None).memory
        align_clip(output, memory)
        assert pickle.dumps(output) == before

    def test_a_clip_without_new_frames_is_refused(self):
        memory = align_clip(output_of(), None).memory
        with pytest.raises(ValueError, match="2 frames with overlap 2 brings no new frame"):
            align_clip(output_of(), memory, overlap=2)

    def test_other_names_in_a_later_clip_are_refused(self):
        memory = align_clip(output_of(), None).memory
        with pytest.raises(ValueError, match="same names in all clips"):
            align_clip(output_of(classes=NUM_CLASSES + 1), memory)
        with pytest.raises(ValueError, match="class_logits has shape None"):
            align_clip(replace(output_of(), class_logits=None), memory)

    def test_two_videos_at_once_are_refused(self):
        output = output_of()
        pair = replace(output, mask_logits=output.mask_logits.expand(2, -1, -1, -1, -1))
        with pytest.raises(ValueError, match="batch of 2 with query_states"):
            align_clip(pair, None)


class TestMemory:
    def test_it_cannot_be_changed(self):
        memory = align_clip(output_of(), None).memory
        with pytest.raises(FrozenInstanceError):
            memory.num_clips = 5

    def test_a_pickled_memory_goes_on_identically(self):
        memory = align_clip(output_of(seed=0), None).memory
        restored = pickle.loads(pickle.dumps(memory))
        ours, theirs = (align_clip(output_of(seed=1), state).memory for state in (memory, restored))
        assert torch.equal(ours.states, theirs.states)
        assert torch.equal(ours.class_logits, theirs.class_logits)
        assert (ours.num_clips, ours.num_frames) == (theirs.num_clips, theirs.num_frames) == (2, 4)

    def test_it_does_not_grow(self):
        memory = align_clip(output_of(), None).memory
        size, stored = memory.nbytes, len(pickle.dumps(memory))
        for seed in range(20):
            memory = align_clip(output_of(seed=seed), memory).memory
        assert memory.nbytes == size == 4 * NUM_QUERIES * (WIDTH + NUM_CLASSES + 1 + 1) + 8 * NUM_QUERIES
        assert len(pickle.dumps(memory)) <= stored + 16

    def test_without_names_there_are_no_class_logits(self):
        assert align_clip(replace(output_of(), class_logits=None), None).memory.class_logits is None


class TestTrackClips:
    def test_one_clip_is_answered_as_the_model_answers_it(self, model, names):
        pixels = frames_of(2)
        (clip,) = track_clips(model, [pixels], class_embeds=names)
        with torch.no_grad():
            output = model(pixels[None], class_embeds=names)
        assert torch.equal(clip.output.mask_logits, output.mask_logits)
        assert torch.equal(clip.memory.class_logits[None], output.class_logits)
        assert clip.clip_map.shape[:2] == (1, 2)

    def test_a_picture_shown_again_keeps_its_queries(self, model, names):
        clips = list(track_clips(model, [frames_of(2)] * 3, class_embeds=names))
        for clip in clips:
            assert torch.equal(clip.permutation, torch.arange(len(clip.permutation)))
        torch.testing.assert_close(clips[-1].memory.class_logits, clips[0].memory.class_logits)

    def test_clips_are_asked_for_one_at_a_time(self, model):
        asked = []

        def clips():
            for number in range(3):
                asked.append(number)
                yield frames_of(1, seed=number)

        stream = track_clips(model, clips())
        assert asked == []
        next(stream)
        assert asked == [0]
        next(stream)
        assert asked == [0, 1]

    def test_earlier_clips_are_let_go(self, model):
        stream = track_clips(model, (frames_of(1, seed=number) for number in range(3)))
        first = next(stream)
        masks, clip_map = weakref.ref(first.output.mask_logits), weakref.ref(first.clip_map)
        del first
        next(stream)
        gc.collect()
        assert masks() is None
        assert clip_map() is None

    def test_a_memory_goes_on_where_the_stream_stopped(self, model, names):
        pixels = frames_of(7)
        slices = split_frames(7, 3, 1)
        whole = list(track_clips(model, [pixels[frames] for frames in slices], class_embeds=names, overlap=1))
        start = list(track_clips(model, [pixels[slices[0]]], class_embeds=names, overlap=1))
        rest = list(
            track_clips(
                model,
                [pixels[frames] for frames in slices[1:]],
                class_embeds=names,
                overlap=1,
                memory=start[-1].memory,
            )
        )
        assert [clip.frames for clip in start + rest] == [clip.frames for clip in whole]
        assert torch.equal(rest[-1].memory.class_logits, whole[-1].memory.class_logits)
        assert torch.equal(rest[-1].output.mask_logits, whole[-1].output.mask_logits)

    def test_no_graph_is_kept(self, model):
        (clip,) = track_clips(model, [frames_of(1)])
        assert not clip.output.mask_logits.requires_grad
        assert torch.is_grad_enabled()

    def test_the_mask_of_the_picture_reaches_every_clip(self, model):
        pixels = frames_of(2)
        mask = torch.zeros((32, 64), dtype=torch.bool)
        mask[:20, :50] = True
        pixels = pixels * mask
        (clip,) = track_clips(model, [pixels], pixel_mask=mask)
        assert clip.output.content_sizes == ((20, 50),)

    def test_a_batch_is_refused(self, model):
        with pytest.raises(ValueError, match=r"expected \(frames, 3, H, W\)"):
            next(track_clips(model, [frames_of(2)[None]]))
