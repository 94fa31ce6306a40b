"""Sessions over videos: ids that persist, memory that does not grow, states that go on identically."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from omg_transformers.inference.packed_masks import FrameSpool, pack_masks, unpack_masks
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.inference.video_state import VideoState
from omg_transformers.inference.video_tracks import Tracks
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.structures import Segments
from omg_transformers.testing import tiny_model

NAMES = ["cat", "dog", "grass"]
SIZE = (40, 56)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def processor(model):
    random = torch.Generator().manual_seed(0)
    vocabulary = Vocabulary.from_table(NAMES, torch.randn(len(NAMES), model.config.text_dim, generator=random))
    space = LabelSpace.from_names(NAMES, things=["cat", "dog"])
    image_processor = OMGSegImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return OMGSegProcessor(image_processor, space, vocabulary)


@pytest.fixture
def make_session(model, processor):
    def make(task="video_panoptic", **settings):
        options = {"overlap_threshold": 0.1} if task == "video_panoptic" else {}
        return VideoSession(model, processor, task, **options, **settings)

    return make


def video_of(count, *, size=SIZE, seed=0):
    """Smooth noise that moves to the right."""
    random = np.random.default_rng(seed)
    wide = np.kron(random.integers(0, 256, (size[0] // 8, size[1] // 8 + count, 3), dtype=np.uint8), np.ones((8, 8, 1)))
    return [wide[: size[0], 2 * step : 2 * step + size[1]].astype(np.uint8) for step in range(count)]


def same(first, second):
    assert [result.index for result in first] == [result.index for result in second]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.frame, other.frame)
        assert torch.equal(one.segments.ids, other.segments.ids)
        assert torch.equal(one.segments.labels, other.segments.labels)
        assert torch.equal(one.segments.scores, other.segments.scores)
        for index in range(len(one.segments)):
            assert torch.equal(one.segments.mask(index), other.segments.mask(index))


class TestStream:
    @pytest.mark.parametrize("task", ["video_panoptic", "video_instance", "video_semantic"])
    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_every_frame_is_answered_once_at_its_own_size(self, make_session, task, mode):
        frames = video_of(5)
        results = list(make_session(task, mode=mode, window=2).stream(frames))
        assert [result.index for result in results] == list(range(5))
        for result, frame in zip(results, frames, strict=True):
            assert np.array_equal(result.frame, frame)
            assert (result.segments.size, result.segments.num_frames) == (SIZE, 1)
        assert any(len(result.segments) for result in results)

    @pytest.mark.parametrize("overlap", [0, 1, 2])
    def test_overlaps_are_answered_once(self, make_session, overlap):
        results = list(make_session(window=3, overlap=overlap).stream(iter(video_of(8))))
        assert [result.index for result in results] == list(range(8))

    def test_a_picture_shown_again_and_again_keeps_its_ids(self, make_session):
        results = list(make_session().stream([video_of(1)[0]] * 4))
        assert len(results[0].segments) > 0
        for result in results[1:]:
            assert torch.equal(result.segments.ids, results[0].segments.ids)
            assert torch.equal(result.segments.id_map, results[0].segments.id_map)

    def test_online_results_come_before_later_frames_are_read(self, make_session):
        read = []

        def frames():
            for number, frame in enumerate(video_of(6)):
                read.append(number)
                yield frame

        stream = make_session(window=2).stream(frames())
        next(stream)
        assert read == [0, 1]

    def test_a_video_of_one_frame_is_answered_as_its_picture(self, model, processor, make_session):
        from omg_transformers.inference import OMGSegPipeline

        (frame,) = video_of(1)
        pipeline = OMGSegPipeline(model=model, processor=processor, task="panoptic")
        (picture,) = pipeline.segment([frame], task="panoptic", overlap_threshold=0.1)
        for mode in ("online", "offline"):
            (result,) = make_session(mode=mode, window=3).stream([frame])
            assert torch.equal(result.segments.labels, picture.labels), mode
            if mode == "online":
                assert torch.equal(result.segments.id_map > 0, picture.id_map > 0)

    def test_offline_a_list_and_an_iterator_get_the_same_answer(self, make_session):
        frames = video_of(6)
        same(
            list(make_session(mode="offline", window=3).stream(frames)),
            list(make_session(mode="offline", window=3).stream(iter(frames))),
        )

    def test_offline_all_frames_share_the_classes_of_the_whole_video(self, make_session):
        session = make_session("video_instance", mode="offline")
        results = list(session.stream(video_of(5)))
        labels = {}
        for result in results:
            for query, label in zip(result.segments.info["queries"].tolist(), result.segments.labels, strict=True):
                labels.setdefault(query, set()).add(int(label))
        top = session.state.memory.class_logits[:, :-1].argmax(-1)
        assert labels
        assert all(int(top[query]) in found for query, found in labels.items())


def best_ids(segments):
    """Query -> id of the first, surest segment that it shows."""
    rows = zip(segments.info["queries"].tolist(), segments.ids.tolist(), strict=True)
    return dict(reversed(list(rows)))


class TestNames:
    def test_later_frames_speak_of_the_new_names_and_objects_keep_their_ids(self, make_session):
        frames = [video_of(1)[0]] * 4
        session = make_session("video_instance")
        stream = session.stream(frames)
        before = [next(stream) for _ in range(2)][-1].segments
        assert session.set_labels(["grass", "cat"]) == 2
        assert session.label_space.names == ("grass", "cat")
        after = [result.segments for result in stream]
        (fresh,) = make_session("video_instance", labels=["grass", "cat"]).stream(frames[:1])
        owners = best_ids(before)
        kept = [query for query in after[0].info["queries"].tolist() if query in owners]
        assert kept
        for segments in after:
            assert segments.labels.tolist() == fresh.segments.labels.tolist()
            torch.testing.assert_close(segments.scores, fresh.segments.scores)
            found = best_ids(segments)
            assert [found[query] for query in kept] == [owners[query] for query in kept]

    def test_a_window_that_waits_is_answered_with_the_new_names(self, make_session):
        session = make_session(window=2, overlap=1)
        stream = session.stream(video_of(6))
        assert next(stream).index == 0  # frame 1 is answered, too, and waits
        assert session.set_labels(["dog"]) == 2
        results = list(stream)
        assert [result.index for result in results] == [1, 2, 3, 4, 5]
        assert all((result.segments.labels == 0).all() for result in results[1:])

    def test_a_session_restored_after_a_change_goes_on_identically(self, model, processor, make_session, tmp_path):
        frames = video_of(5)
        session = make_session()
        stream = session.stream(frames)
        next(stream)
        session.set_labels(["dog", "grass"], threshold=0.0)
        next(stream)
        session.state.save(tmp_path / "state.safetensors")
        restored = VideoSession.restore(model, processor, VideoState.load(tmp_path / "state.safetensors"))
        assert restored.label_space == session.label_space
        same(list(restored.stream(frames[2:])), list(stream))

    def test_an_offline_session_takes_other_names_before_its_first_frame_only(self, make_session):
        session = make_session(mode="offline")
        assert session.set_labels(["dog"]) == 0
        stream = session.stream(video_of(3))
        assert (next(stream).segments.labels == 0).all()
        with pytest.raises(ValueError, match="call set_labels before its first frame"):
            session.set_labels(["cat"])

    def test_an_unknown_name_changes_nothing(self, make_session, tmp_path):
        session = make_session()
        next(session.stream(video_of(2)))
        session.state.save(tmp_path / "before")
        with pytest.raises(ValueError, match="unicorn"):
            session.set_labels(["unicorn"])
        session.state.save(tmp_path / "after")
        assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
        assert session.label_space.names == tuple(NAMES)


class TestMemory:
    def test_the_state_does_not_grow(self, make_session):
        session = make_session(window=2, overlap=1)
        sizes = [session.state.nbytes for _ in session.stream(iter(video_of(24)))]
        assert max(sizes[12:]) <= max(sizes[:12]) + 32 * session.model.config.num_queries

    def test_masks_are_packed_within_a_step(self):
        logits = torch.randn((5, 9, 13), generator=torch.Generator().manual_seed(0)) * 3
        logits[0], logits[1] = 100.0, -100.0
        found = unpack_masks(pack_masks(logits), (5, 9, 13))
        assert (found - logits).abs().max() <= 1 / 128 + 1e-6

    def test_saturated_masks_take_few_bytes(self):
        logits = torch.full((48, 48, 88), -20.0)
        logits[:, 10:20, 10:40] = 20.0
        assert len(pack_masks(logits)) < 10_000

    def test_a_spool_gives_the_frames_back(self):
        frames, spool = video_of(3), FrameSpool()
        for frame in frames:
            spool.append(frame)
        for _ in range(2):
            assert all(np.array_equal(one, other) for one, other in zip(spool, frames, strict=True))


class TestState:
    @pytest.mark.parametrize("mode", ["online", "offline"])
    @pytest.mark.parametrize("stop", [1, 4, 5])
    def test_a_restored_session_goes_on_identically(self, model, processor, make_session, tmp_path, mode, stop):
        frames = video_of(9)
        whole = list(make_session(mode=mode, window=3, overlap=1).stream(frames))
        session = make_session(mode=mode, window=3, overlap=1)
        stream = session.stream(frames)
        first = [next(stream) for _ in range(stop)]
        session.state.save(tmp_path / "state.safetensors")
        state = VideoState.load(tmp_path / "state.safetensors")
        restored = VideoSession.restore(model, processor, state)
        same([*first, *restored.stream(frames[state.next_frame :])], whole)

    def test_a_pickled_state_goes_on_identically(self, model, processor, make_session):
        frames = video_of(6)
        session = make_session(window=2)
        next(session.stream(frames))
        state = pickle.loads(pickle.dumps(session.state))
        rest = frames[state.next_frame :]
        same(list(VideoSession.restore(model, processor, state).stream(rest)), list(session.stream(rest)))

    def test_a_state_is_a_snapshot(self, make_session):
        session = make_session()
        stream = session.stream(video_of(5))
        next(stream)
        state = session.state
        before = pickle.dumps(state)
        list(stream)
        assert pickle.dumps(state) == before

    def test_another_model_is_refused(self, processor, make_session):
        session = make_session()
        next(session.stream(video_of(2)))
        with pytest.raises(ValueError, match="made with another model"):
            VideoSession.restore(tiny_model(seed=1), processor, session.state)

    def test_a_file_that_is_no_state_is_refused(self, make_session, tmp_path):
        path = tmp_path / "state.safetensors"
        make_session().state.save(path)
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(ValueError, match="was its writer interrupted"):
            VideoState.load(path)
        with pytest.raises(FileNotFoundError, match="does not exist"):
            VideoState.load(tmp_path / "none")


class TestBadInput:
    def test_frames_that_change_in_size(self, make_session):
        frames = [*video_of(2), *video_of(1, size=(48, 56))]
        session = make_session()
        stream = session.stream(frames)
        assert [next(stream).index, next(stream).index] == [0, 1]
        with pytest.raises(ValueError, match="frame 2 is 56 x 48 but the video is 56 x 40"):
            next(stream)

    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_no_frame_at_all(self, make_session, mode):
        with pytest.raises(ValueError, match="the video has no frame"):
            list(make_session(mode=mode).stream([]))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"mode": "later"}, "mode is 'later'"),
            ({"window": 0}, "window is 0"),
            ({"window": 2, "overlap": 2}, "overlap is 2"),
            ({"horizon": -1}, "horizon is -1"),
        ],
    )
    def test_settings(self, make_session, settings, message):
        with pytest.raises(ValueError, match=message):
            make_session(**settings)

    def test_a_task_that_wants_prompts(self, model, processor):
        with pytest.raises(ValueError, match="use ObjectSession"):
            VideoSession(model, processor, "video_object")

    def test_a_path_instead_of_frames(self, make_session):
        with pytest.raises(TypeError, match="open_frames"):
            list(make_session().stream("video.mp4"))

    def test_an_offline_video_is_answered_once(self, make_session):
        session = make_session(mode="offline")
        frames = video_of(2)
        list(session.stream(frames))
        with pytest.raises(ValueError, match="has been answered"):
            list(session.stream(frames))


def shown(queries, labels=None):
    count = len(queries)
    labels = [0] * count if labels is None else labels
    return Segments(
        (1, 1),
        torch.arange(1, count + 1),
        torch.tensor(labels),
        torch.ones(count),
        rles=((None,),) * count,
        info={"queries": torch.tensor(queries)},
    )


class TestTracks:
    def test_an_object_that_returns_within_the_horizon_keeps_its_id(self):
        tracks = Tracks(horizon=2)
        assert tracks.assign(shown([7, 3]), 0).ids.tolist() == [1, 2]
        assert tracks.assign(shown([3]), 1).ids.tolist() == [2]
        assert tracks.live_queries(3, 8).nonzero().flatten().tolist() == [3, 7]
        assert tracks.assign(shown([7]), 3).ids.tolist() == [1]

    def test_after_the_horizon_it_is_another_object(self):
        tracks = Tracks(horizon=2)
        tracks.assign(shown([7]), 0)
        assert not tracks.live_queries(4, 8).any()
        assert tracks.assign(shown([7]), 4).ids.tolist() == [2]

    def test_stuff_keeps_its_id_for_good(self):
        tracks = Tracks(horizon=0)
        first = tracks.assign(shown([-1, 4], [2, 0]), 0).ids.tolist()
        assert tracks.assign(shown([-1], [2]), 100).ids.tolist() == first[:1]

    def test_two_classes_of_one_query_have_two_ids(self):
        tracks = Tracks(horizon=5)
        assert tracks.assign(shown([4, 4], [0, 1]), 0).ids.tolist() == [1, 2]
        assert tracks.assign(shown([4, 4], [0, 1]), 1).ids.tolist() == [1, 2]

    def test_stuff_whose_name_stays_keeps_its_id_under_its_new_label(self):
        tracks = Tracks(horizon=0)
        tracks.assign(shown([-1, -1, 4], [2, 1, 0]), 0)
        tracks.rename({2: 0})
        assert tracks.assign(shown([-1, -1, 4], [0, 1, 2]), 1).ids.tolist() == [1, 4, 3]

    def test_id_maps_follow(self):
        segments = Segments(
            (1, 3),
            torch.tensor([1, 2]),
            torch.tensor([0, 0]),
            torch.ones(2),
            id_map=torch.tensor([[[0, 1, 2]]], dtype=torch.int32),
            info={"queries": torch.tensor([5, 6])},
        )
        tracks = Tracks(horizon=5)
        tracks.assign(shown([6]), 0)
        assert tracks.assign(segments, 1).id_map.tolist() == [[[0, 2, 1]]]

    def test_results_that_say_nothing_keep_their_ids(self):
        segments = dataclasses.replace(shown([1, 2]), ids=torch.tensor([9, 4]), info={})
        assert Tracks(horizon=1).assign(segments, 0).ids.tolist() == [9, 4]
