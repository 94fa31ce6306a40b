"""SA-V: masklets in JSON; frames from a folder or an mp4, or none at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers.data import ClipSource, FramesSource, SampleError, detect_layouts, open_layout
from omg_transformers.data.frames import decode_frames
from omg_transformers.data.regions import region_area
from omg_transformers.formats.video_file import VideoFile

SIZE = (16, 24)


def rle_of(columns):
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[4:8, columns] = 1
    return {"size": list(SIZE), "counts": coco_mask.encode(mask)["counts"].decode()}


def write_json(root, num_frames=3, name="sav_1", **changes):
    """Object 0 in every frame; object 2 only in the first: later its mask is empty."""
    content = {
        "video_id": name,
        "video_height": float(SIZE[0]),
        "video_width": float(SIZE[1]),
        "masklet": [[rle_of(slice(0, 6)), rle_of(slice(8, 10) if frame == 0 else [])] for frame in range(num_frames)],
        "masklet_id": [0, 2],
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}_manual.json").write_text(json.dumps({**content, **changes}))
    return root


def write_frames(root, count, name="sav_1"):
    (root / name).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", SIZE[::-1], (number, 0, 0)).save(root / name / f"{number:05d}.png")
    return root


def write_movie(root, count, name="sav_1"):
    movie = VideoFile(root / f"{name}.mp4", fps=24)
    for number in range(count):
        movie.add(np.full((*SIZE, 3), 20 * number, np.uint8))
    movie.close()


def test_objects_are_tracks_without_class(tmp_path):
    annotation = open_layout("sa_v", write_frames(write_json(tmp_path), 3)).sample(0).annotation
    assert [(segment.track_id, segment.category_id) for segment in annotation.segments] == [(1, -1), (3, -1)]
    assert [[region_area(rle) for rle in segment.masks] for segment in annotation.segments] == [[24] * 3, [8, 0, 0]]
    assert annotation.certain_classes == frozenset()


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (12, [0, 4, 8]), (9, [0, 4, 8])])
def test_frames_are_all_or_every_fourth(tmp_path, count, expected):
    sample = open_layout("sa_v", write_frames(write_json(tmp_path), count)).sample(0)
    assert [int(path.stem) for path in sample.frames] == expected


def test_a_folder_with_another_number_of_frames_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"sav_1 holds 7 pictures, .*_manual\.json annotates 3 frames"):
        open_layout("sa_v", write_frames(write_json(tmp_path), 7)).sample(0)


def test_frames_may_lie_in_a_folder_of_their_own(tmp_path):
    write_frames(tmp_path / "frames", 3)
    sample = open_layout("sa_v", write_json(tmp_path), pictures="frames").sample(0)
    assert sample.frames[0].parent.parent.name == "frames"


def test_an_mp4_is_decoded_at_the_annotated_frames(tmp_path):
    pytest.importorskip("av")
    write_movie(write_json(tmp_path), 9)
    clip = open_layout("sa_v", tmp_path).clip(0, [0, 2])
    assert [frame.shape for frame in clip.frames] == [(*SIZE, 3)] * 2
    # Frames 0 and 8, coded with loss.
    assert [round(float(frame.mean()), -1) for frame in clip.frames] == [0, 160]
    assert clip.sample_id == "sav_1/0,2"


def test_an_mp4_that_ends_early_is_named(tmp_path):
    pytest.importorskip("av")
    write_movie(write_json(tmp_path), 5)
    with pytest.raises(SampleError, match=r"sav_1\.mp4 ends before frame 8"):
        open_layout("sa_v", tmp_path).sample(0)


def test_a_broken_mp4_is_named(tmp_path):
    pytest.importorskip("av")
    (write_json(tmp_path) / "sav_1.mp4").write_bytes(b"no movie")
    with pytest.raises(SampleError, match=r"sav_1\.mp4 cannot be decoded"):
        open_layout("sa_v", tmp_path).sample(0)


def test_without_the_video_annotations_can_be_read_and_samples_say_what_is_missing(tmp_path):
    source = open_layout("sa_v", write_json(tmp_path))
    assert source.annotation(0).num_frames == 3
    with pytest.raises(SampleError, match=r"the video sav_1 is not there: put sav_1\.mp4 or a folder sav_1 of its fr"):
        source.sample(0)


def test_files_may_lie_one_folder_deeper(tmp_path):
    write_json(tmp_path / "sav_000", name="sav_7")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("sa_v", ("manual",))
    assert open_layout("sa_v", tmp_path).num_samples == 1


def test_only_the_files_that_are_asked_for_are_opened(tmp_path):
    write_frames(write_json(tmp_path), 3)
    (tmp_path / "sav_0_manual.json").write_text("cut sho")
    source = open_layout("sa_v", tmp_path, "manual")
    assert source.sample(1).sample_id == "sav_1"
    with pytest.raises(SampleError, match=r"sav_0_manual\.json is not valid JSON"):
        source.sample(0)


def test_masks_that_do_not_fit_the_list_of_objects_are_refused(tmp_path):
    source = open_layout("sa_v", write_frames(write_json(tmp_path, masklet_id=[0]), 3))
    with pytest.raises(SampleError, match=r"_manual\.json, frame 0: 2 masks for 1 objects"):
        source.sample(0)


def test_a_file_without_masklets_is_refused(tmp_path):
    with pytest.raises(SampleError, match="has no masklets"):
        open_layout("sa_v", write_json(tmp_path, masklet=[]), "manual").annotation(0)


@pytest.mark.parametrize(
    "change", [{"masklet_id": [1, 1]}, {"masklet_id": None}, {"video_height": 0}, {"video_width": float("nan")}]
)
def test_a_bad_head_of_a_file_is_named(tmp_path, change):
    source = open_layout("sa_v", write_json(tmp_path, **change))
    with pytest.raises(SampleError, match=rf"sav_1_manual\.json has {next(iter(change))}="):
        source.annotation(0)


def test_sizes_may_be_texts_as_in_older_files(tmp_path):
    assert open_layout("sa_v", write_json(tmp_path, masklet_id=["0", "2"])).annotation(0).num_frames == 3


def test_a_split_that_is_no_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no split 'train' in the layout sa_v"):
        open_layout("sa_v", write_json(tmp_path), "train")


def test_clips_and_frames_of_masklets(tmp_path):
    source = open_layout("sa_v", write_frames(write_json(tmp_path), 3))
    assert [frame.stem for frame in ClipSource(source).sample(0).frames] == ["00000", "00002"]
    pictures = FramesSource(source)
    assert pictures.num_samples == 3
    assert decode_frames(pictures.sample(2))[0].getpixel((0, 0)) == (2, 0, 0)


@pytest.mark.parametrize(("kind", "count"), [("manual", 5), ("auto", 9)])
def test_the_real_files_have_their_masklets(shared_data, kind, count):
    source = open_layout("sa_v", shared_data / "sav_sample_no_video", kind)
    annotation = source.annotation(0)
    assert (source.num_samples, annotation.num_frames, annotation.size) == (1, 121, (848, 480))
    assert len(annotation.segments) == count
    with pytest.raises(SampleError, match=r"the video sav_000001 is not there"):
        source.sample(0)
