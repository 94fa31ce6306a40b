"""Objects that are followed: given, added, corrected, removed, lost and found again."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from omg_transformers.inference.label_propagation import (
    LabelledFrame,
    Propagation,
    cell_distances,
    cell_shares,
    propagate_labels,
    to_labels,
)
from omg_transformers.inference.object_state import ObjectState
from omg_transformers.inference.video_objects import ObjectSession
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.testing import tiny_model

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    return OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}))


@pytest.fixture
def make_session(model, processor):
    def make(**settings):
        return ObjectSession(model, processor, resolution=64, **settings)

    return make


def square(left, top, side=24):
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def video_of(lefts, top=16):
    """A red square before a blue wall, at x = lefts[t]; None: it is not there."""
    random = np.random.default_rng(0)
    wall = random.integers(0, 30, (*SIZE, 3), dtype=np.uint8) + np.array([0, 0, 120], dtype=np.uint8)
    frames = []
    for left in lefts:
        frame = wall.copy()
        if left is not None:
            frame[square(left, top)] = (230, 40, 20)
        frames.append(frame)
    return frames


def iou(result, mask, place=0):
    found = result.segments.mask(place)[0].numpy()
    return (found & mask).sum() / max(1, (found | mask).sum())


class TestStream:
    def test_the_first_frame_shows_what_was_given(self, make_session):
        session = make_session()
        session.add_object(mask=square(10, 16))
        (result,) = session.stream(video_of([10]))
        assert iou(result, square(10, 16)) == 1
        assert (result.index, result.segments.ids.tolist(), result.segments.labels.tolist()) == (0, [1], [-1])

    def test_a_moving_object_is_followed(self, make_session):
        lefts = list(range(8, 60, 4))
        session = make_session()
        session.add_object(mask=square(8, 16))
        overlaps = [
            iou(result, square(left, 16)) for result, left in zip(session.stream(video_of(lefts)), lefts, strict=True)
        ]
        assert min(overlaps) > 0.5
        assert iou(result_of(session), square(8, 16)) < 0.2  # copying the first mask would not do

    def test_an_object_that_is_lost_has_no_mask_and_may_return(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        results = list(session.stream(video_of([8, 8, None, None, 8, 8])))
        assert [results[frame].segments.rles[0][0] is None for frame in (1, 3, 5)] == [False, True, False]
        assert results[3].segments.ids.tolist() == [1]
        assert results[3].segments.scores.tolist() == [0.0]
        assert iou(results[5], square(8, 16)) > 0.8

    def test_two_objects_share_no_pixel(self, make_session):
        session = make_session()
        session.add_object(mask=square(4, 16))
        session.add_object(mask=square(28, 16))
        for result in session.stream(video_of([4, 6, 8])):
            assert result.segments.ids.tolist() == [1, 2]
        assert not (result.segments.mask(0) & result.segments.mask(1)).any()

    @pytest.mark.parametrize("prompt", [{"box": (8, 16, 32, 40)}, {"points": [(20, 28)]}])
    def test_boxes_and_points_are_turned_into_masks(self, make_session, prompt):
        session = make_session()
        assert session.add_object(**prompt) == 1
        result, *_ = session.stream(video_of([8, 10]))
        assert result.segments.mask(0).any()
        if "box" in prompt:
            assert not (result.segments.mask(0)[0].numpy() & ~square(8, 16)).any()


def result_of(session):
    """The last frame's result once more."""
    last = session.state.next_frame - 1
    known = session.state.frames[-1]
    return session._result(last, known.picture, known.labelled.labels.float() / 255, {})


class TestChanges:
    def test_an_object_is_added_on_a_later_frame(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        number = session.add_object(mask=square(60, 30), frame=2)
        results = list(session.stream(video_of([8] * 4)))
        assert [result.segments.ids.tolist() for result in results] == [[1, number]] * 4
        assert results[1].segments.rles[1][0] is None
        assert iou(results[2], square(60, 30), 1) == 1
        assert results[3].segments.mask(1).any()

    def test_a_correction_of_the_last_frame_counts_from_the_next(self, make_session):
        half = square(8, 16) & (np.arange(SIZE[1]) < 20)
        overlaps = []
        for is_corrected in (False, True):
            session = make_session()
            session.add_object(mask=half)
            stream = session.stream(video_of([8] * 4))
            next(stream)
            next(stream)
            if is_corrected:
                session.correct_object(1, mask=square(8, 16))
            overlaps.append(iou(next(stream), square(8, 16)))
        assert overlaps[1] > overlaps[0] + 0.1

    def test_kept_frames_are_propagated_again_in_both_directions(self, make_session):
        session = make_session(keep_frames=5)
        session.add_object(mask=square(50, 34))
        list(session.stream(video_of([8] * 5)))
        session.correct_object(1, mask=square(8, 16), frame=2)
        after = {result.index: iou(result, square(8, 16)) for result in session.propagate(2)}
        before = {result.index: iou(result, square(8, 16)) for result in session.propagate(2, reverse=True)}
        assert (list(after), list(before)) == ([3, 4], [1, 0])
        assert min(*after.values(), before[1]) > 0.5
        assert before[0] == 0  # what was given there stays

    def test_a_removed_object_is_gone(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        session.add_object(mask=square(60, 30))
        stream = session.stream(video_of([8] * 3))
        next(stream)
        session.remove_object(1)
        result = next(stream)
        assert result.segments.ids.tolist() == [2]
        assert result.segments.mask(0).any()
        assert session.object_ids == (2,)


class TestState:
    def test_a_restored_session_goes_on_identically(self, model, processor, make_session, tmp_path):
        frames = video_of(range(8, 36, 4))
        session = make_session(keep_frames=2)
        session.add_object(mask=square(8, 16))
        session.add_object(mask=square(60, 30), frame=5)
        stream = session.stream(frames)
        for _ in range(3):
            next(stream)
        session.state.save(tmp_path / "objects.safetensors")
        state = ObjectState.load(tmp_path / "objects.safetensors")
        assert state.next_frame == 3
        for other in (state, pickle.loads(pickle.dumps(session.state))):
            restored = ObjectSession.restore(model, processor, other)
            results = list(restored.stream(frames[3:]))
            assert len(results) == 4
            expected = make_session(keep_frames=2)
            expected.add_object(mask=square(8, 16))
            expected.add_object(mask=square(60, 30), frame=5)
            for one, whole in zip(results, list(expected.stream(frames))[3:], strict=True):
                assert one.segments.rles == whole.segments.rles
                assert torch.equal(one.segments.scores, whole.segments.scores)

    def test_another_model_is_refused(self, processor, make_session):
        with pytest.raises(ValueError, match="made with another model"):
            ObjectSession.restore(tiny_model(seed=1), processor, make_session().state)

    def test_the_state_does_not_grow(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        sizes = [session.state.nbytes for _ in session.stream(iter(video_of([8] * 12)))]
        assert max(sizes[6:]) == sizes[5]

    def test_corrections_do_not_pile_up(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        for _ in session.stream(iter(video_of([8] * 12))):
            session.correct_object(1, mask=square(8, 16))
        assert len(session.state.anchors) <= 7
        assert session.state.anchors[0].index == 0


class TestBadInput:
    def test_no_object(self, make_session):
        with pytest.raises(ValueError, match="no object to follow: call add_object"):
            list(make_session().stream(video_of([8])))

    def test_an_object_that_does_not_exist(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        with pytest.raises(LookupError, match="no object 7; followed are: 1"):
            session.remove_object(7)
        with pytest.raises(LookupError, match="no object 7"):
            session.correct_object(7, mask=square(8, 16))

    def test_an_id_twice(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16), object_id=3)
        with pytest.raises(ValueError, match="object_id is 3: it is followed already"):
            session.add_object(mask=square(8, 16), object_id=3)

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ({}, "given by nothing"),
            ({"mask": square(8, 16), "box": (0, 0, 5, 5)}, "given by mask and box"),
            ({"mask": np.zeros(SIZE)}, "is empty"),
            ({"mask": np.zeros((1, *SIZE))}, r"has shape \(1, 64, 96\)"),
            ({"points": [(1, 1)], "point_labels": [1, 0]}, "point_labels has 2 entries"),
        ],
    )
    def test_prompts(self, make_session, prompt, message):
        with pytest.raises(ValueError, match=message):
            make_session().add_object(**prompt)

    def test_a_mask_of_another_size(self, make_session):
        session = make_session()
        session.add_object(mask=np.ones((20, 30)))
        with pytest.raises(ValueError, match="mask of object 1 is 30 x 20 but the frame is 96 x 64"):
            list(session.stream(video_of([8])))

    def test_a_frame_that_is_not_kept(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        list(session.stream(video_of([8] * 4)))
        with pytest.raises(LookupError, match="frame 1 is not kept; kept are: 3"):
            session.correct_object(1, mask=square(8, 16), frame=1)

    def test_frames_that_change_in_size(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        with pytest.raises(ValueError, match="frame 1 is 90 x 64 but the video is 96 x 64"):
            list(session.stream([*video_of([8]), video_of([8])[0][:, :90]]))

    def test_no_frame_at_all(self, make_session):
        session = make_session()
        session.add_object(mask=square(8, 16))
        with pytest.raises(ValueError, match="the video has no frame"):
            list(session.stream([]))


class TestPropagation:
    def test_labels_go_to_the_cells_that_look_alike(self):
        random = torch.Generator().manual_seed(0)
        features = torch.nn.functional.normalize(torch.randn((16, 12), generator=random), dim=0)
        labels = (torch.rand((2, 12), generator=random) > 0.5).float()
        order = torch.randperm(12, generator=random)
        frame = LabelledFrame(0, features.half(), to_labels(labels), (4, 9), is_anchor=True)
        found = propagate_labels(
            features[:, order], [frame], (9, 4), cell_distances((3, 4)), Propagation(num_neighbours=1)
        )
        assert torch.equal(found.round(), labels[[1, 0]][:, order])

    def test_labels_of_recent_frames_do_not_jump_far(self):
        features = torch.ones((1, 12))
        labels = torch.zeros((1, 12))
        labels[0, 11] = 1
        frame = LabelledFrame(0, features.half(), to_labels(labels), (1,))
        found = propagate_labels(features, [frame], (1,), cell_distances((3, 4)), Propagation(12, 0.05, radius=0.26))
        assert found[0].nonzero().flatten().tolist() == [6, 7, 10, 11]

    def test_a_frame_that_does_not_know_an_object_says_nothing_of_it(self):
        features = torch.ones((1, 2))
        knows = LabelledFrame(0, features.half(), to_labels(torch.ones((1, 2))), (1,), is_anchor=True)
        other = LabelledFrame(1, features.half(), to_labels(torch.ones((1, 2))), (2,), is_anchor=True)
        found = propagate_labels(features, [knows, other], (1, 2), cell_distances((1, 2)), Propagation())
        assert torch.allclose(found, torch.ones((2, 2)))

    def test_shares_of_cells(self):
        mask = torch.zeros((1, 4, 4), dtype=torch.bool)
        mask[0, :2, :3] = True
        assert cell_shares(mask, (2, 2)).tolist() == [[1.0, 0.5, 0.0, 0.0]]
