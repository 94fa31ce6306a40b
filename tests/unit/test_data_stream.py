"""The mix: exact resume, the right shares, the same samples however the work is split."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections import Counter

import pytest
import torch

from omg_transformers.data import MixedStream, MixPart, ProceduralScenes, SampleError, TrainTransform, collate, iterate
from omg_transformers.data.sources import ShuffledOrder
from omg_transformers.data.stream import WorkerLostError, is_lost_worker

SCENES = ProceduralScenes((24, 32), seed=1)
TRANSFORM = TrainTransform((32, 32))


class FiniteSource:
    """The first scenes only; those in `bad` cannot be read."""

    label_space, tasks = SCENES.label_space, SCENES.tasks

    def __init__(self, num_samples, bad=()):
        self.num_samples, self.bad = num_samples, bad

    def sample(self, index):
        if index in self.bad:
            raise SampleError(f"scene {index} is bad")
        return SCENES.sample(index)


def stream(*parts, **options):
    parts = parts or (
        MixPart("panoptic", FiniteSource(5), weight=3, transform=TRANSFORM),
        MixPart("semantic", SCENES, weight=1, transform=TRANSFORM),
    )
    return MixedStream(parts, **{"batch_size": 2, "collate": collate, "seed": 4, **options})


def take(source, count):
    return list(itertools.islice(source, count))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one["sample_ids"], one["part"], one["task"]) == (other["sample_ids"], other["part"], other["task"])
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert one["annotations"] == other["annotations"]


def test_a_resumed_stream_goes_on_where_it_stopped():
    whole = take(stream(), 9)
    stopped = stream()
    take(stopped, 4)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = stream()
    resumed.load_state_dict(state)
    assert_same(take(resumed, 5), whole[4:])


def test_two_ranks_see_what_one_process_with_twice_the_batch_sees():
    whole = take(stream(batch_size=4), 4)
    ranks = [take(stream(batch_size=2, rank=rank, world_size=2), 4) for rank in (0, 1)]
    for one, first, second in zip(whole, *ranks, strict=True):
        assert one["sample_ids"] == first["sample_ids"] + second["sample_ids"]
        assert one["task"] == first["task"] == second["task"]


def test_a_stream_may_go_on_with_another_number_of_processes():
    one = stream(batch_size=4)
    take(one, 3)
    following = take(one, 1)[0]["sample_ids"]
    second = stream(batch_size=2, rank=1, world_size=2)
    second.load_state_dict({**one.state_dict(), "position": 3})
    assert take(second, 1)[0]["sample_ids"] == following[2:]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers):
    worked = stream(num_workers=num_workers)
    take(worked, 2)
    # What was made ahead but not handed out is not lost.
    assert worked.position == 2
    assert_same(take(worked, 3), take(stream(), 5)[2:])


def test_a_finite_source_is_passed_through_completely_in_new_orders():
    batches = take(stream(MixPart("panoptic", FiniteSource(6))), 6)
    ids = [sample_id for batch in batches for sample_id in batch["sample_ids"]]
    assert sorted(ids[:6]) == sorted(ids[6:]) == sorted(f"procedural-1-{index}" for index in range(6))
    assert ids[:6] != ids[6:]


def test_each_part_gets_its_share():
    counts = Counter(stream()._schedule[position][0] for position in range(1024))
    assert abs(counts[0] - 768) <= 4
    assert abs(Counter(stream()._schedule[position][0] for position in range(64))[0] - 48) < 16


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_in_parts_sees_what_one_batch_sees(ranks):
    whole = take(stream(batch_size=4), 6)
    parts = [
        take(stream(batch_size=2 // ranks, accumulate=2, rank=rank, world_size=ranks), 12) for rank in range(ranks)
    ]
    for step, one in enumerate(whole):
        found = [batches[2 * step + place] for place in (0, 1) for batches in parts]
        assert [sample_id for batch in found for sample_id in batch["sample_ids"]] == one["sample_ids"]
        assert [seed for batch in found for seed in batch["seeds"]] == one["seeds"]
        assert {batch["part"] for batch in found} == {one["part"]}


def test_a_step_of_which_a_part_is_missing_comes_again():
    stopped = stream(accumulate=2)
    following = take(stopped, 3)[2]["sample_ids"]
    assert stopped.state_dict()["position"] == 1
    resumed = stream(accumulate=2)
    resumed.load_state_dict(stopped.state_dict())
    assert take(resumed, 1)[0]["sample_ids"] == following


def test_a_stream_may_go_on_with_steps_in_more_parts():
    one = stream(batch_size=4)
    take(one, 3)
    split = stream(batch_size=2, accumulate=2)
    split.load_state_dict(one.state_dict())
    following = take(split, 2)
    assert [name for batch in following for name in batch["sample_ids"]] == take(one, 1)[0]["sample_ids"]


def test_every_draw_of_a_sample_has_its_own_seed():
    seeds = [seed for batch in take(stream(), 8) for seed in batch["seeds"]]
    assert len(set(seeds)) == len(seeds) == 16


def test_a_killed_worker_is_named_and_what_to_do():
    broken = stream(num_workers=1)
    batches = iter(broken)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="lower num_workers, now 1"):
        for _ in range(50):
            next(batches)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly"), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (ConnectionRefusedError(111, "Connection refused"), True),
        (FileNotFoundError(2, "No such file or directory"), True),
        (EOFError(), True),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"), False),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_lost_worker_is_told_from_one_that_raised(error, is_lost):
    assert is_lost_worker(error) is is_lost


class Raising:
    """A transform with a mistake in it."""

    def __call__(self, sample, rng):
        raise RuntimeError("the transform is wrong")


def test_an_error_within_a_worker_is_not_taken_for_its_death():
    broken = stream(MixPart("panoptic", SCENES, transform=Raising()), num_workers=1)
    with pytest.raises(RuntimeError, match="the transform is wrong") as caught:
        take(broken, 1)
    assert not isinstance(caught.value, WorkerLostError)


def test_a_far_position_is_the_same_by_walking_and_by_jumping():
    walked, jumped = stream()._schedule, stream()._schedule
    for position in range(1000):
        result = walked[position]
    assert jumped[999] == result


def test_every_batch_has_one_task_and_says_which_part_it_came_from():
    batches = take(stream(), 12)
    assert {(batch["task"], batch["part"]) for batch in batches} == {
        ("panoptic", "panoptic:0"),
        ("semantic", "semantic:1"),
    }


def test_a_bad_sample_is_replaced_and_named_when_skipped():
    tolerant = stream(MixPart("panoptic", FiniteSource(4, bad=(2,))), on_error="skip")
    batches = take(tolerant, 4)
    assert all("procedural-1-2" not in batch["sample_ids"] for batch in batches)
    assert tolerant.skipped and set(tolerant.skipped) == {"scene 2 is bad"}
    again = stream(MixPart("panoptic", FiniteSource(4, bad=(2,))), on_error="skip")
    assert_same(take(again, 4), batches)


def test_a_bad_sample_stops_the_stream_by_default():
    with pytest.raises(SampleError, match="scene 2 is bad"):
        take(stream(MixPart("panoptic", FiniteSource(4, bad=(2,)))), 2)


def test_a_source_of_nothing_but_bad_samples_is_given_up():
    broken = stream(MixPart("panoptic", FiniteSource(3, bad=(0, 1, 2))), on_error="skip")
    with pytest.raises(SampleError, match="10 samples in a row of panoptic:0 are bad"):
        take(broken, 1)


def test_the_state_of_another_mix_is_refused():
    state = stream().state_dict()
    with pytest.raises(ValueError, match="seed was 4, is 5"):
        stream(seed=5).load_state_dict(state)
    with pytest.raises(ValueError, match="total_batch_size was 2, is 3"):
        stream(batch_size=3).load_state_dict(state)
    with pytest.raises(ValueError, match="parts was"):
        stream(MixPart("panoptic", SCENES)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of world_size 2"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"on_error": "hide"}, "on_error is 'hide'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stream(**options)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (MixPart("panoptic", SCENES, weight=0), "weight 0"),
        (MixPart("video_object", SCENES), "wants the task 'video_object'"),
        (MixPart("panoptic", FiniteSource(0)), "without samples"),
    ],
)
def test_impossible_parts_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        stream(part)


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="parts is empty"):
        MixedStream([], batch_size=1, collate=collate)


def test_three_ranks_walk_through_a_source_and_see_each_sample_once():
    seen = [sample.sample_id for rank in range(3) for sample in iterate(FiniteSource(7), rank=rank, world_size=3)]
    assert sorted(seen) == sorted(f"procedural-1-{index}" for index in range(7))


def test_a_shuffled_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="num_samples is 0"):
        ShuffledOrder(0, (1,))


def test_a_number_beyond_the_end_is_refused():
    with pytest.raises(IndexError, match="valid numbers are endless"):
        SCENES.sample(-1)
