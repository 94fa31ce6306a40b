"""Clips of videos, frames of videos as pictures, clips made from pictures."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.data import (
    ClipSource,
    ComposedScenes,
    FramesSource,
    MappedSource,
    MixedStream,
    ProceduralScenes,
    PseudoClips,
    SampleError,
    TrainTransform,
    collate,
    open_layout,
)
from omg_transformers.data.clips import annotation_parts, take_frames
from omg_transformers.data.mixture import SourceSettings, build_source, mix_parts
from omg_transformers.data.regions import decode_region
from omg_transformers.labels import LabelSpace
from omg_transformers.plugins import heads_that_read
from omg_transformers.settings import SettingsError, load_settings

SIZE = (24, 32)


def write_videos(root, lengths, annotated=None):
    """Videos in DAVIS's layout: a square that moves 2 pixels per frame; `annotated`: its frames, default all."""
    for name, length in lengths.items():
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for frame in range(length):
            ids = np.zeros(SIZE, np.uint8)
            ids[4:12, 2 * frame : 2 * frame + 8] = 1
            Image.fromarray(ids * 200).convert("RGB").save(root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg")
            if annotated is None or frame in annotated:
                Image.fromarray(ids).save(root / "Annotations" / "480p" / name / f"{frame:05d}.png")
    return open_layout("davis", root)


@pytest.fixture
def videos(tmp_path):
    return write_videos(tmp_path, {"a": 9, "b": 5})


def frames_of(sample):
    return [int(path.stem) for path in sample.frames]


def video_of(sample):
    return sample.frames[0].parent.name


def test_a_clip_has_frames_at_the_interval(videos):
    clips = ClipSource(videos, num_frames=3, interval=2)
    for index in range(20):
        first, second, third = frames_of(clips.sample(index))
        assert second - first == third - second == 2


def test_masks_belong_to_the_frames_of_the_clip(videos):
    clip = ClipSource(videos).sample(3)
    (segment,) = clip.annotation.segments
    for frame, rle in zip(frames_of(clip), segment.masks, strict=True):
        columns = np.flatnonzero(decode_region(rle, SIZE).any(0))
        assert columns[0] == 2 * frame


def test_the_same_index_gives_the_same_clip_in_any_order(videos):
    first, second = ClipSource(videos, seed=5), ClipSource(videos, seed=5)
    forward = [first.sample(index) for index in range(12)]
    backward = [second.sample(index) for index in reversed(range(12))]
    assert forward == backward[::-1]


def test_each_pass_takes_every_video_once(videos):
    clips = ClipSource(videos)
    for number in range(6):
        assert {video_of(clips.sample(2 * number + place)) for place in range(2)} == {"a", "b"}


def test_every_possible_start_is_drawn(videos):
    clips = ClipSource(videos, num_frames=2, interval=2)
    starts = {frames_of(clip)[0] for clip in itertools.islice(clips, 120) if video_of(clip) == "a"}
    assert starts == set(range(7))


def test_another_seed_gives_other_clips(videos):
    one, other = ([frames_of(clip) for clip in itertools.islice(ClipSource(videos, seed=seed), 8)] for seed in (0, 1))
    assert one != other


def test_another_seed_gives_another_order_of_videos(videos):
    orders = {
        tuple(video_of(clip) for clip in itertools.islice(ClipSource(videos, seed=seed), 12)) for seed in range(4)
    }
    assert len(orders) > 1


def test_a_short_video_gets_the_largest_interval_that_fits(tmp_path):
    clips = ClipSource(write_videos(tmp_path, {"two": 2}), num_frames=2, interval=5)
    assert frames_of(clips.sample(0)) == [0, 1]


def test_a_video_of_one_frame_is_left_out_and_named(tmp_path):
    clips = ClipSource(write_videos(tmp_path, {"long": 4, "single": 1}))
    assert clips.too_short == ("single",)
    assert {video_of(clip) for clip in itertools.islice(clips, 6)} == {"long"}


def test_a_long_video_with_one_annotated_frame_is_left_out(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 videos has 2 annotated frames: x\."):
        ClipSource(write_videos(tmp_path, {"x": 6}, annotated={2}))


def test_videos_that_are_all_too_short_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 videos has 3 annotated frames: x\. Lower num_frames"):
        ClipSource(write_videos(tmp_path, {"x": 2}), num_frames=3)


def test_frames_count_among_the_annotated_ones(tmp_path):
    clips = ClipSource(write_videos(tmp_path, {"x": 9}, annotated={0, 4, 8}), num_frames=2, interval=1)
    assert {tuple(frames_of(clip)) for clip in itertools.islice(clips, 20)} == {(0, 4), (4, 8)}


def test_clips_of_an_endless_source_of_clips_are_cut_from_its_samples():
    scenes = ProceduralScenes((16, 16), num_frames=5, seed=1)
    clip = ClipSource(scenes, num_frames=2, interval=3).sample(4)
    assert clip.sample_id.startswith("procedural-1-4/")
    assert len(clip.frames) == clip.annotation.num_frames == 2


def test_clips_of_pictures_are_refused():
    with pytest.raises(ValueError, match="PseudoClips makes clips from pictures"):
        ClipSource(ProceduralScenes((16, 16)))


@pytest.mark.parametrize(("options", "name"), [({"num_frames": 1}, "num_frames"), ({"interval": 0}, "interval")])
def test_wrong_options_of_clips_are_named(videos, options, name):
    with pytest.raises(ValueError, match=f"{name} is"):
        ClipSource(videos, **options)


def test_a_bad_video_is_an_error_of_its_own_sample_only(tmp_path):
    source = write_videos(tmp_path, {"good": 4, "lost": 4})
    next((tmp_path / "JPEGImages" / "480p" / "lost").glob("*3.jpg")).unlink()
    clips = ClipSource(open_layout("davis", tmp_path))
    assert source.num_samples == 2
    outcomes = []
    for index in range(2):
        try:
            outcomes.append(video_of(clips.sample(index)))
        except SampleError as error:
            outcomes.append("lost" if "annotates 1 frames" in str(error) else str(error))
    assert sorted(outcomes) == ["good", "lost"]


def test_clips_survive_pickling(videos):
    clips = ClipSource(videos)
    clips.sample(0)
    assert pickle.loads(pickle.dumps(clips)).sample(3) == clips.sample(3)


def test_frames_are_pictures_for_the_heads_of_pictures(videos):
    frames = FramesSource(videos)
    assert frames.num_samples == 14
    assert frames.tasks == heads_that_read((), is_video=False)
    sample = frames.sample(9)
    assert (video_of(sample), frames_of(sample), sample.annotation.num_frames) == ("b", [0], 1)
    assert sample.tasks == frames.tasks


def test_every_nth_frame_of_each_video_is_taken(videos):
    frames = FramesSource(videos, every=4)
    assert [(video_of(sample), *frames_of(sample)) for sample in frames] == [
        ("a", 0), ("a", 4), ("a", 8), ("b", 0), ("b", 4),
    ]  # fmt: skip


def test_frames_without_annotation_are_no_pictures(tmp_path):
    frames = FramesSource(write_videos(tmp_path, {"x": 6}, annotated={0, 5}))
    assert [frames_of(sample) for sample in frames] == [[0], [5]]


def test_frames_need_a_reader_of_videos():
    with pytest.raises(ValueError, match="ProceduralScenes does not read videos from files"):
        FramesSource(ProceduralScenes((16, 16), num_frames=3))


def test_a_pseudo_clip_repeats_picture_masks_and_void():
    scenes = ProceduralScenes((16, 24), seed=2)
    void_space = LabelSpace("grounds", scenes.label_space.classes[-8:])
    pictures = MappedSource(scenes, void_space, unmapped="void")
    clip, picture = PseudoClips(pictures, num_frames=3).sample(5), pictures.sample(5)
    assert picture.annotation.void[0] is not None
    assert clip.annotation.void == picture.annotation.void * 3
    assert all(np.array_equal(frame, picture.frames[0]) for frame in clip.frames)
    for segment, original in zip(clip.annotation.segments, picture.annotation.segments, strict=True):
        assert segment.masks == original.masks * 3
        assert segment.track_id == original.track_id


def test_pseudo_clips_serve_what_clips_with_such_annotations_do():
    scenes = ProceduralScenes((16, 24))
    assert PseudoClips(scenes).tasks == ProceduralScenes((16, 24), num_frames=2).tasks
    assert PseudoClips(ComposedScenes(scenes)).tasks == PseudoClips(scenes).tasks


def test_objects_without_ids_get_different_ones():
    scenes = ProceduralScenes((32, 32), seed=3, num_objects=(4, 4))

    class Nameless:
        num_samples, label_space, tasks = None, scenes.label_space, scenes.tasks

        def sample(self, index):
            sample = scenes.sample(index)
            segments = tuple(replace(segment, track_id=-1) for segment in sample.annotation.segments)
            return replace(sample, annotation=replace(sample.annotation, segments=segments))

    segments = PseudoClips(Nameless()).sample(0).annotation.segments
    numbers = [segment.track_id for segment in segments if scenes.label_space.is_thing[segment.category_id]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_pseudo_clips_of_clips_are_refused():
    with pytest.raises(ValueError, match="it holds clips already"):
        PseudoClips(ProceduralScenes((16, 16), num_frames=2))


def test_parts_are_found_through_heads_when_a_source_does_not_state_them():
    scenes = ProceduralScenes((16, 16))
    mapped = MappedSource(scenes, scenes.label_space)
    assert set(annotation_parts(mapped)) == {"classes", "instances", "scene"}


def test_segments_that_no_chosen_frame_shows_are_dropped():
    clip = ProceduralScenes((24, 24), num_frames=3, seed=4).sample(0)
    gone = replace(clip.annotation.segments[0], masks=(clip.annotation.segments[0].masks[0], None, None))
    clip = replace(clip, annotation=replace(clip.annotation, segments=(gone,)))
    assert take_frames(clip, [1, 2]).annotation.segments == ()
    assert take_frames(clip, [0]).annotation.segments[0].masks == gone.masks[:1]


def test_frames_outside_a_clip_are_refused():
    with pytest.raises(IndexError, match=r"it has frames 0\.\.1"):
        take_frames(ProceduralScenes((16, 16), num_frames=2).sample(0), [2])


def settings(**changes):
    return load_settings(SourceSettings, overrides=[f"{name}={value}" for name, value in changes.items()])


def test_settings_make_clips(tmp_path):
    write_videos(tmp_path, {"a": 6})
    source = build_source(settings(kind="davis", root=tmp_path, clip="{num_frames: 3, interval: 1}"))
    assert len(source.sample(0).frames) == 3


def test_settings_make_pictures_and_pseudo_clips_of_frames(tmp_path):
    write_videos(tmp_path, {"a": 6})
    source = build_source(settings(kind="davis", root=tmp_path, frames="{every: 3}", pseudo_clip="{num_frames: 4}"))
    assert source.num_samples == 2
    assert source.tasks == ("video_object",)
    assert len(source.sample(1).frames) == 4


def test_clip_beside_what_makes_pictures_is_refused():
    with pytest.raises(SettingsError, match="clip and frames and compose are both set"):
        settings(kind="scenes", clip="{}", frames="{}", compose="{}")


def test_a_misspelt_key_of_a_clip_is_named():
    with pytest.raises(SettingsError, match=r"clip\.intervall: no such setting; did you mean interval"):
        settings(kind="scenes", clip="{intervall: 2}")


def test_frames_of_pictures_are_an_error_that_names_the_source():
    with pytest.raises(ValueError, match="source scenes: ProceduralScenes does not read videos"):
        build_source(settings(kind="scenes", frames="{}"))


def test_a_class_agnostic_source_needs_no_vocabulary(tmp_path):
    write_videos(tmp_path, {"a": 6})
    source = build_source(settings(kind="davis", root=tmp_path, clip="{}"), lambda name: False)
    assert source.label_space.is_class_agnostic


def test_whole_videos_cannot_be_mixed(tmp_path):
    write_videos(tmp_path, {"a": 6})
    choice = settings(kind="davis", root=tmp_path)
    with pytest.raises(ValueError, match=r"source davis gives whole videos: set clip"):
        mix_parts({"video_object": 1.0}, [(choice, build_source(choice))])


def test_a_source_changes_the_transform_of_the_run():
    choice = settings(kind="scenes", transform="{scale: [0.1, 2.0], min_area: 32}")
    (part,) = mix_parts({"panoptic": 1.0}, [(choice, build_source(choice))], TrainTransform((40, 48), min_area=3))
    assert part.transform == TrainTransform((40, 48), scale=(0.1, 2.0), min_area=32)


def test_pseudo_clips_get_a_window_for_each_frame_unless_told_otherwise():
    for words, shares in (("{}", False), ("{shares_window: true}", True)):
        choice = settings(kind="scenes", pseudo_clip="{}", transform=words)
        (part,) = mix_parts({"video_panoptic": 1.0}, [(choice, build_source(choice))], TrainTransform((40, 48)))
        assert part.transform.shares_window is shares


def test_a_changed_transform_needs_one_in_the_run():
    choice = settings(kind="scenes", transform="{flip_probability: 0}")
    with pytest.raises(ValueError, match="source scenes: its transform changes TrainTransform, but the run's is none"):
        mix_parts({"panoptic": 1.0}, [(choice, build_source(choice))])


def real_mix(shared_data, **options):
    choices = [
        settings(kind="vipseg", root=shared_data / "VIPSeg_from_camvid", clip="{}"),
        settings(kind="davis", root=shared_data / "DAVIS", split="val", clip="{interval: 3}"),
        settings(kind="coco_panoptic", root=shared_data / "coco", split="val2017"),
    ]
    mix = {"video_panoptic": 1.0, "video_object": 1.0, "panoptic": 1.0}
    sources = [(choice, build_source(choice)) for choice in choices]
    sources[1] = (replace(choices[1], tasks=["video_object"]), sources[1][1])
    sources[0] = (replace(choices[0], tasks=["video_panoptic"]), sources[0][1])
    parts = mix_parts(mix, sources, TrainTransform((48, 64), color_jitter=0))
    return MixedStream(parts, batch_size=2, collate=partial(collate, size=(48, 64)), seed=3, **options)


def test_real_videos_and_pictures_mix_and_resume_exactly(shared_data):
    whole = list(itertools.islice(real_mix(shared_data), 6))
    assert {(batch["task"], batch["is_clip"]) for batch in whole} == {
        ("video_panoptic", True), ("video_object", True), ("panoptic", False),
    }  # fmt: skip
    for batch in whole:
        frames = (2,) if batch["is_clip"] else ()
        assert batch["pixel_values"].shape == (2, *frames, 3, 64, 64)
    stopped = real_mix(shared_data)
    list(itertools.islice(stopped, 1))
    resumed = real_mix(shared_data)
    resumed.load_state_dict(stopped.state_dict())
    for batch, expected in zip(itertools.islice(resumed, 5), whole[1:], strict=True):
        assert batch["sample_ids"] == expected["sample_ids"]
        assert torch.equal(batch["pixel_values"], expected["pixel_values"])
        assert batch["annotations"] == expected["annotations"]
