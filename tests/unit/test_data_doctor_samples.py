"""The data doctor on samples in memory: clips whose tracks are wrong, void, and what only annotations tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omg_transformers.data import ProceduralScenes
from omg_transformers.data.doctor import check_source
from omg_transformers.data.regions import encode_region
from omg_transformers.data.writers import write_source
from omg_transformers.structures import Segment

from .drawn_samples import SIZE, ListSource, box_region, drawn_sample, drawn_source, with_annotation

NUM_FRAMES = 5
WHOLE = encode_region(np.ones(SIZE, bool))


def clips(**changes):
    """Three sound clips, the second with another annotation."""
    samples = [drawn_sample(seed, NUM_FRAMES) for seed in range(3)]
    samples[1] = with_annotation(samples[1], **changes)
    return ListSource(samples)


def with_masks(place, masks):
    """The segments of the second clip, one with other masks in some frames."""
    segments = list(drawn_sample(1, NUM_FRAMES).annotation.segments)
    old = segments[place]
    changed = tuple(masks.get(frame, rle) for frame, rle in enumerate(old.masks))
    segments[place] = replace(old, masks=changed)
    return {"segments": tuple(segments)}


def split_track():
    """The first thing goes on under another id from frame 3 on."""
    segments = list(drawn_sample(1, NUM_FRAMES).annotation.segments)
    thing = segments[2]
    masks = thing.masks
    segments[2] = replace(thing, masks=(*masks[:3], None, None))
    segments.append(Segment(thing.category_id, (None, None, None, *masks[3:]), 77))
    return {"segments": tuple(segments)}


def double_id():
    segments = list(drawn_sample(1, NUM_FRAMES).annotation.segments)
    return {"segments": (*segments[:3], replace(segments[3], track_id=segments[2].track_id))}


def class_beyond():
    segments = drawn_sample(1, NUM_FRAMES).annotation.segments
    return {"segments": (*segments[:3], replace(segments[3], category_id=6))}


FAULTS = {
    "track_jump": with_masks(2, {3: box_region(0, 50, 8, 59)}),
    "track_area_jump": with_masks(3, {2: box_region(20, 30, 23, 34)}),
    "track_gap": with_masks(2, {2: None}),
    "track_changes_id": split_track(),
    "unannotated_frames": {"void": (None, WHOLE, WHOLE, None, None)},
    "all_void": {"segments": (), "void": (WHOLE,) * NUM_FRAMES},
    "much_void": {"void": (box_region(0, 0, 30, 60),) * NUM_FRAMES},
    "duplicated_id": double_id(),
    "id_without_class": class_beyond(),
    "empty_segment": with_masks(2, dict.fromkeys(range(NUM_FRAMES))),
}
PLANTED = {*FAULTS, "not_exhaustive"}


def test_sound_clips_are_sound():
    report = check_source(clips())
    assert [problem for problem in report.problems if problem.severity != "note"] == []
    assert report.splits[0].num_frames == 3 * NUM_FRAMES


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_planted_into_a_clip_is_named(kind):
    report = check_source(clips(**FAULTS[kind]))
    assert kind in report.kinds
    assert {problem.index for problem in report.of_kind(kind)} <= {1, None}


def test_moving_turning_and_hiding_objects_are_no_jumps():
    report = check_source(ProceduralScenes((64, 96), num_frames=6, seed=3), limit=6)
    assert not {"track_jump", "track_changes_id"} & set(report.kinds)


def test_a_jump_says_frame_and_object():
    (problem,) = [p for p in check_source(clips(**FAULTS["track_jump"])).of_kind("track_jump") if p.frame == 3]
    assert (problem.sample_id, problem.segment) == ("2", 2)
    assert problem.message == "dog 3 is nowhere near its place in frame 2"


def test_an_object_that_leaves_its_id_to_a_piece_of_itself_is_named():
    changes = split_track()
    piece = box_region(30, 2, 33, 5)
    segments = list(changes["segments"])
    segments[2] = replace(segments[2], masks=(*segments[2].masks[:3], piece, piece))
    (problem,) = check_source(clips(segments=tuple(segments))).of_kind("track_changes_id")
    assert (problem.message, problem.frame) == ("dog 77 starts where dog 3 was before", 3)


def test_a_video_with_objects_left_out_on_purpose_is_noted(tmp_path):
    sample = drawn_sample(0, NUM_FRAMES)
    things = sample.annotation.segments[2:]
    covered = [
        np.logical_or.reduce([decode(segment.masks[frame]) for segment in things]) for frame in range(NUM_FRAMES)
    ]
    void = tuple(encode_region(~mask) for mask in covered)
    source = ListSource([with_annotation(sample, segments=things, void=void)])
    write_source(source, "youtube_vis", tmp_path, "train")
    from omg_transformers.data.doctor import check_folder

    report = check_folder(tmp_path, "youtube_vis")
    assert report.of_kind("not_exhaustive")[0].sample_id == "1"


def test_a_bad_frame_of_a_video_is_named_and_the_others_are_checked(tmp_path):
    write_source(drawn_source(0, 2, NUM_FRAMES), "davis", tmp_path, "train")
    path = tmp_path / "Annotations" / "480p" / "1" / "00002.png"
    path.write_bytes(path.read_bytes()[:40])
    from omg_transformers.data.doctor import check_folder

    report = check_folder(tmp_path, "davis")
    (problem,) = report.of_kind("broken_file")
    assert (problem.frame, problem.index) == (2, 0)
    assert "00002.png" in problem.message
    assert report.splits[0].num_frames == 2 * NUM_FRAMES - 1


def test_frames_keep_their_numbers_beside_a_bad_one(tmp_path):
    source = clips(**FAULTS["track_jump"])
    write_source(source, "davis", tmp_path, "train")
    path = tmp_path / "Annotations" / "480p" / "2" / "00001.png"
    path.write_bytes(path.read_bytes()[:40])
    from omg_transformers.data.doctor import check_folder

    assert 3 in [problem.frame for problem in check_folder(tmp_path, "davis").of_kind("track_jump")]


def test_classes_are_counted():
    (split,) = check_source(ListSource([drawn_sample(0)])).splits
    counts = split.counts
    assert sum(counts.pixels) + counts.void == counts.total == SIZE[0] * SIZE[1]
    assert counts.segments == [2, 0, 0, 0, 1, 1]
    assert counts.samples == [1, 0, 0, 0, 1, 1]


def decode(rle):
    from omg_transformers.data.regions import decode_region

    return decode_region(rle, SIZE)
