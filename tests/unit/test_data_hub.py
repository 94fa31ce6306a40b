"""Sources as streaming datasets, and streams as sources."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import (
    EvalTransform,
    MixedStream,
    MixPart,
    ProceduralScenes,
    SampleError,
    StreamedSource,
    as_iterable_dataset,
    collate,
    sample_from_row,
)

SCENES = ProceduralScenes((24, 32), num_frames=2, seed=3)


class FiniteSource:
    label_space, tasks = SCENES.label_space, SCENES.tasks

    def __init__(self, num_samples, bad=()):
        self.num_samples, self.bad = num_samples, bad

    def sample(self, index):
        if index in self.bad:
            raise SampleError(f"scene {index} is bad")
        return SCENES.sample(index)


def open_seven():
    return (SCENES.sample(index) for index in range(7))


def test_rows_give_the_samples_back():
    rows = list(as_iterable_dataset(FiniteSource(5), num_shards=2))
    assert len(rows) == 5
    for index, row in enumerate(rows):
        sample, original = sample_from_row(row, SCENES.label_space), SCENES.sample(index)
        assert sample.annotation == original.annotation and sample.tasks == original.tasks
        assert np.array_equal(EvalTransform()(sample).frames[1], original.frames[1])


def test_paths_stay_paths(tmp_path):
    class PathSource(FiniteSource):
        def sample(self, index):
            sample = SCENES.sample(index)
            paths = [tmp_path / f"{index}-{frame}.png" for frame in range(2)]
            for path, frame in zip(paths, sample.frames, strict=True):
                Image.fromarray(frame).save(path)
            return replace(sample, frames=tuple(paths))

    row = next(iter(as_iterable_dataset(PathSource(1))))
    assert sample_from_row(row, SCENES.label_space).frames == (tmp_path / "0-0.png", tmp_path / "0-1.png")


def test_a_resumed_dataset_goes_on_where_it_stopped():
    dataset = as_iterable_dataset(FiniteSource(7), num_shards=3)
    ids = [row["sample_id"] for row in dataset]
    iterator = iter(dataset)
    for _ in range(4):
        next(iterator)
    resumed = as_iterable_dataset(FiniteSource(7), num_shards=3)
    resumed.load_state_dict(dataset.state_dict())
    assert [row["sample_id"] for row in resumed] == ids[4:]


def test_an_endless_source_streams_from_every_shard():
    dataset = as_iterable_dataset(SCENES, num_shards=2)
    assert dataset.num_shards == 2
    second = dataset.shard(2, 1)
    assert [row["sample_id"] for row in itertools.islice(second, 2)] == ["procedural-3-1", "procedural-3-3"]


def test_a_bad_sample_is_left_out_or_stops_the_dataset():
    rows = list(as_iterable_dataset(FiniteSource(4, bad=(1,)), on_error="skip"))
    assert [row["sample_id"] for row in rows] == [f"procedural-3-{index}" for index in (0, 2, 3)]
    with pytest.raises(SampleError, match="scene 1 is bad"):
        list(as_iterable_dataset(FiniteSource(4, bad=(1,))))


def test_no_shards_are_refused():
    with pytest.raises(ValueError, match="num_shards is 0"):
        as_iterable_dataset(SCENES, num_shards=0)


def test_a_stream_starts_again_at_its_end():
    source = StreamedSource(open_seven, SCENES.label_space, SCENES.tasks)
    assert [source.sample(index).sample_id for index in (5, 6, 7, 15)] == [
        f"procedural-3-{index}" for index in (5, 6, 0, 1)
    ]


def test_a_step_back_gives_the_same_sample():
    source = StreamedSource(open_seven, SCENES.label_space, SCENES.tasks)
    assert source.sample(4).sample_id == "procedural-3-4"
    assert source.sample(1).sample_id == "procedural-3-1"
    assert pickle.loads(pickle.dumps(source)).sample(3).sample_id == "procedural-3-3"


def test_a_stream_without_samples_is_refused():
    with pytest.raises(ValueError, match="gave no sample"):
        StreamedSource(list, SCENES.label_space, SCENES.tasks).sample(0)


def test_a_streamed_source_resumes_exactly_in_a_mix():
    def mix():
        source = StreamedSource(open_seven, SCENES.label_space, SCENES.tasks)
        return MixedStream([MixPart("video_panoptic", source)], batch_size=3, collate=collate)

    ids = [batch["sample_ids"] for batch in itertools.islice(mix(), 6)]
    stopped = mix()
    list(itertools.islice(stopped, 4))
    resumed = mix()
    resumed.load_state_dict(stopped.state_dict())
    assert [batch["sample_ids"] for batch in itertools.islice(resumed, 2)] == ids[4:]
