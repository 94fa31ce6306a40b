"""Properties of the data streams that must hold for any seed."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_transformers.data import MixedStream, MixPart, ProceduralScenes, TrainTransform, collate, pad_annotation
from omg_transformers.data.regions import decode_region, encode_region, region_area
from omg_transformers.data.sources import ShuffledOrder

SCENES = ProceduralScenes((24, 36), seed=9)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, index=st.integers(0, 50))
def test_a_mirrored_sample_is_the_mirror_of_the_sample(seed, index):
    sample = SCENES.sample(index)
    plain, mirrored = (
        TrainTransform((32, 32), flip_probability=share, color_jitter=0)(sample, np.random.default_rng(seed))
        for share in (0, 1)
    )
    size = plain.annotation.size
    assert np.array_equal(plain.frames[0][:, ::-1], mirrored.frames[0])
    assert len(plain.annotation.segments) == len(mirrored.annotation.segments)
    for one, other in zip(plain.annotation.segments, mirrored.annotation.segments, strict=True):
        assert np.array_equal(decode_region(one.masks[0], size)[:, ::-1], decode_region(other.masks[0], size))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, index=st.integers(0, 50))
def test_no_pixel_is_lost_or_counted_twice(seed, index):
    annotation = TrainTransform((32, 32))(SCENES.sample(index), np.random.default_rng(seed)).annotation
    padded = pad_annotation(annotation, (32, 32))
    assert sum(region_area(segment.masks[0]) for segment in padded.segments) + region_area(padded.void[0]) == 32 * 32


@settings(max_examples=15, deadline=None)
@given(seed=seeds, stop=st.integers(1, 5), ranks=st.sampled_from([1, 2, 3]))
def test_resume_is_no_stop(seed, stop, ranks):
    def streams():
        parts = [MixPart("panoptic", SCENES, 2, TrainTransform((32, 32))), MixPart("instance", SCENES)]
        return [
            MixedStream(parts, batch_size=1, collate=collate, seed=seed, rank=rank, world_size=ranks)
            for rank in range(ranks)
        ]

    for whole, stopped, resumed in zip(streams(), streams(), streams(), strict=True):
        expected = list(itertools.islice(whole, 6))[stop:]
        list(itertools.islice(stopped, stop))
        resumed.load_state_dict(stopped.state_dict())
        for one, other in zip(expected, itertools.islice(resumed, 6 - stop), strict=True):
            assert one["sample_ids"] == other["sample_ids"]
            assert one["annotations"] == other["annotations"]
            assert one["pixel_values"].equal(other["pixel_values"])


@given(num_samples=st.integers(1, 40), seed=seeds, passes=st.integers(1, 3))
def test_each_pass_of_an_order_holds_every_number_once(num_samples, seed, passes):
    order = ShuffledOrder(num_samples, (seed,))
    for number in range(passes):
        drawn = [order[number * num_samples + place] for place in range(num_samples)]
        assert sorted(drawn) == list(range(num_samples))


@given(st.integers(1, 9), st.integers(1, 9), seeds)
def test_regions_survive_encoding(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    rle = encode_region(mask)
    assert np.array_equal(decode_region(rle, (height, width)), mask)
    assert (rle is None) == (not mask.any()) and region_area(rle) == mask.sum()
