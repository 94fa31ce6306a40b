"""What all readers of videos share, and DAVIS's and YouTube-VOS's layouts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import (
    SampleError,
    as_iterable_dataset,
    detect_layouts,
    iterate,
    open_layout,
    sample_from_row,
)
from omg_transformers.data.frames import decode_frames
from omg_transformers.data.readers.videos import pair_frames, values_of
from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.labels import builtin_label_space
from omg_transformers.processing.pictures import natural_order

SIZE = (12, 16)
AREA = SIZE[0] * SIZE[1]


def ids_of(*boxes):
    """A map (H, W) with `value` in rows and columns of (value, top, bottom, left, right)."""
    ids = np.zeros(SIZE, np.uint8)
    for value, top, bottom, left, right in boxes:
        ids[top:bottom, left:right] = value
    return ids


def write_video(root, name, frames, folder="480p", suffix="jpg"):
    """frames: per frame its ids, None for a frame without a PNG."""
    pictures, truths = (root / kind / folder / name for kind in ("JPEGImages", "Annotations"))
    pictures.mkdir(parents=True)
    truths.mkdir(parents=True)
    for number, ids in enumerate(frames):
        Image.new("RGB", SIZE[::-1], (number, 90, 90)).save(pictures / f"{number:05d}.{suffix}")
        if ids is not None:
            Image.fromarray(ids).save(truths / f"{number:05d}.png")


def test_objects_keep_their_ids_through_the_video(tmp_path):
    write_video(tmp_path, "v", [ids_of((2, 0, 4, 0, 4)), ids_of((2, 0, 4, 2, 6), (9, 6, 8, 0, 5)), ids_of()])
    annotation = open_layout("davis", tmp_path).sample(0).annotation
    assert [(segment.track_id, segment.category_id) for segment in annotation.segments] == [(2, -1), (9, -1)]
    assert [[region_area(rle) for rle in segment.masks] for segment in annotation.segments] == [[16, 16, 0], [0, 10, 0]]
    assert annotation.void == (None, None, None)


def test_no_class_is_certain_where_only_chosen_objects_are_annotated(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4))])
    assert open_layout("davis", tmp_path).sample(0).annotation.certain_classes == frozenset()


def test_a_frame_without_a_png_is_void_as_a_whole(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4)), None])
    annotation = open_layout("davis", tmp_path).sample(0).annotation
    assert annotation.void[0] is None and region_area(annotation.void[1]) == AREA
    assert annotation.segments[0].masks[1] is None


def test_255_is_void_and_no_object(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4), (255, 8, 12, 8, 16))])
    annotation = open_layout("davis", tmp_path).sample(0).annotation
    assert len(annotation.segments) == 1 and region_area(annotation.void[0]) == 32


def test_a_clip_without_any_annotated_frame_has_the_size_of_its_picture(tmp_path):
    write_video(tmp_path, "v", [ids_of(), None, None])
    clip = open_layout("davis", tmp_path).clip(0, [1, 2])
    assert clip.annotation.size == SIZE
    assert [region_area(rle) for rle in clip.annotation.void] == [AREA, AREA]


def test_a_video_of_one_frame_is_a_sample(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4))])
    sample = open_layout("davis", tmp_path).sample(0)
    assert (len(sample.frames), sample.annotation.num_frames, sample.tasks) == (1, 1, ("video_object",))


def test_frames_are_paths_until_they_are_decoded(tmp_path):
    write_video(tmp_path, "v", [ids_of(), ids_of()])
    sample = open_layout("davis", tmp_path).sample(0)
    assert all(isinstance(frame, Path) for frame in sample.frames)
    assert [picture.size for picture in decode_frames(sample)] == [SIZE[::-1]] * 2


def test_a_clip_opens_only_its_own_masks(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4))] * 3)
    (tmp_path / "Annotations/480p/v/00001.png").write_bytes(b"broken")
    source = open_layout("davis", tmp_path)
    assert source.clip(0, [0, 2]).annotation.num_frames == 2
    with pytest.raises(SampleError, match=r"00001\.png is missing or not a readable PNG"):
        source.sample(0)


def test_a_mask_without_its_picture_is_an_error_of_that_video(tmp_path):
    write_video(tmp_path, "v", [ids_of()] * 2)
    write_video(tmp_path, "w", [ids_of()] * 2)
    (tmp_path / "JPEGImages/480p/w/00001.jpg").unlink()
    source = open_layout("davis", tmp_path)
    assert source.sample(0).sample_id == "v"
    with pytest.raises(SampleError, match=r"w annotates 1 frames that .*JPEGImages.480p.w does not hold \(00001\)"):
        source.sample(1)


def test_bad_videos_can_be_skipped(tmp_path):
    write_video(tmp_path, "v", [ids_of()])
    write_video(tmp_path, "w", [ids_of()])
    (tmp_path / "JPEGImages/480p/v/00000.jpg").unlink()
    skipped = []
    source = open_layout("davis", tmp_path)
    assert [sample.sample_id for sample in iterate(source, on_error="skip", skipped=skipped)] == ["w"]
    assert len(skipped) == 1


def test_frames_of_different_sizes_are_an_error(tmp_path):
    write_video(tmp_path, "v", [ids_of(), np.zeros((6, 7), np.uint8)])
    with pytest.raises(SampleError, match=r"00001\.png, frame 1 of v, is 6 high and 7 wide, another one 12 and 16"):
        open_layout("davis", tmp_path).sample(0)


def test_a_mask_of_another_size_than_its_picture_is_found_when_the_picture_is_decoded(tmp_path):
    write_video(tmp_path, "v", [np.zeros((6, 7), np.uint8)])
    with pytest.raises(SampleError, match="they do not belong together"):
        decode_frames(open_layout("davis", tmp_path).sample(0))


def test_a_coloured_mask_is_refused(tmp_path):
    write_video(tmp_path, "v", [np.zeros((*SIZE, 3), np.uint8)])
    with pytest.raises(SampleError, match=r"00000\.png has mode RGB: expected one whole number per pixel"):
        open_layout("davis", tmp_path).sample(0)


@pytest.mark.parametrize("positions", [[3], [-1], [0, 7]])
def test_frames_outside_the_video_are_refused(tmp_path, positions):
    write_video(tmp_path, "v", [ids_of()] * 3)
    with pytest.raises(IndexError, match=r"of v: it has frames 0\.\.2"):
        open_layout("davis", tmp_path).clip(0, positions)


def test_videos_survive_pickling(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4))])
    source = open_layout("davis", tmp_path)
    assert pickle.loads(pickle.dumps(source)).sample(0) == source.sample(0)


def test_videos_go_through_a_streaming_dataset_and_back(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4)), None])
    write_video(tmp_path, "w", [ids_of((5, 0, 4, 0, 4))])
    source = open_layout("davis", tmp_path)
    rows = as_iterable_dataset(source, num_shards=2)
    assert [sample_from_row(row, source.label_space) for row in rows] == list(source)


def test_frame_2_comes_before_frame_10(tmp_path):
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
    for number in (10, 2, 1):
        Image.new("RGB", (4, 4)).save(tmp_path / "a" / f"f{number}.png")
    assert [path.stem for path in pair_frames("v", tmp_path / "a", tmp_path / "b").frames] == ["f1", "f2", "f10"]
    assert natural_order(Path("x2")) < natural_order(Path("x10"))


def test_hidden_files_are_no_frames(tmp_path):
    write_video(tmp_path, "v", [ids_of()])
    (tmp_path / "JPEGImages/480p/v/._00001.jpg").write_bytes(b"metadata")
    assert len(open_layout("davis", tmp_path).sample(0).frames) == 1


def test_values_are_found_in_any_order_of_memory():
    ids = np.random.default_rng(0).integers(0, 5, (7, 9))
    assert values_of(ids) == values_of(np.asfortranarray(ids)) == np.unique(ids).tolist()


def test_splits_are_the_lists_of_the_year(tmp_path):
    for name in "vw":
        write_video(tmp_path, name, [ids_of()])
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("w\n")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("davis", ("val",))
    assert [video.name for video in open_layout("davis", tmp_path).records] == ["w"]


def test_a_video_of_a_list_that_is_not_there_is_named(tmp_path):
    write_video(tmp_path, "v", [ids_of()])
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("gone\n")
    with pytest.raises(SampleError, match="gone is not there: expected the frames of the video gone"):
        open_layout("davis", tmp_path).sample(0)


@pytest.mark.parametrize(("text", "fault"), [("", "is empty"), ("v\nv\n", "names v more than once")])
def test_a_bad_list_is_refused(tmp_path, text, fault):
    write_video(tmp_path, "v", [ids_of()])
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"val\.txt {fault}"):
        open_layout("davis", tmp_path)


def test_another_resolution_can_be_asked_for(tmp_path):
    write_video(tmp_path, "v", [ids_of()])
    write_video(tmp_path, "v", [ids_of(), ids_of()], folder="Full-Resolution")
    assert len(open_layout("davis", tmp_path).sample(0).frames) == 1
    assert len(open_layout("davis", tmp_path, resolution="Full-Resolution").sample(0).frames) == 2
    with pytest.raises(ValueError, match="expected DAVIS's frames in 480p or Full-Resolution"):
        open_layout("davis", tmp_path, resolution="720p")


def test_any_label_space_will_do_for_objects_without_class(tmp_path):
    write_video(tmp_path, "v", [ids_of((1, 0, 4, 0, 4))])
    sample = open_layout("davis", tmp_path, label_space=builtin_label_space("coco_panoptic")).sample(0)
    assert sample.label_space.name == "coco_panoptic" and len(sample.annotation.is_thing) == 133
    assert sample.annotation.segments[0].category_id == -1


def test_youtube_vos_has_videos_directly_in_its_folders(tmp_path):
    write_video(tmp_path / "train", "v", [ids_of((1, 0, 4, 0, 4)), None], folder="")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("youtube_vos", ("train",))
    assert open_layout("youtube_vos", tmp_path).sample(0).annotation.num_frames == 2


# The figures of the data's own README.
@pytest.mark.parametrize(
    ("folder", "split", "counts"),
    [
        ("DAVIS", "val", {"dogs-jump": (66, 3, 66), "car-shadow": (40, 1, 40)}),
        ("DAVIS", "first_frames_only", {"tennis": (52, 2, 2)}),
        ("DAVIS_interactive_sample", "all", {"bear": (2, 1, 2), "tennis": (2, 2, 2)}),
    ],
)
def test_real_videos_have_their_frames_objects_and_annotated_frames(shared_data, folder, split, counts):
    source = open_layout("davis", shared_data / folder, split)
    found = {
        sample.sample_id: (len(sample.frames), len(sample.annotation.segments), len(source.annotated_frames(index)))
        for index, sample in enumerate(source)
    }
    assert found == counts


def test_real_first_frames_hold_56_objects(shared_data):
    samples = list(open_layout("davis", shared_data / "DAVIS_first_frames"))
    assert len(samples) == 20 and all(len(sample.frames) == 1 for sample in samples)
    assert sum(len(sample.annotation.segments) for sample in samples) == 56


def test_the_real_mask_of_tennis_has_void_at_the_ball(shared_data):
    annotation = open_layout("davis", shared_data / "DAVIS", "first_frames_only").clip(0, [0, 1]).annotation
    assert all(0 < region_area(rle) < 2000 for rle in annotation.void)


def test_the_real_vspw_clip_has_44_objects_in_its_first_frame_only(shared_data):
    annotation = open_layout("youtube_vos", shared_data / "vspw_vos").sample(0).annotation
    assert (annotation.size, annotation.num_frames, len(annotation.segments)) == ((1080, 1920), 12, 44)
    assert all(segment.masks[0] and not any(segment.masks[1:]) for segment in annotation.segments)


def test_a_real_mask_covers_what_the_png_says(shared_data):
    path = shared_data / "DAVIS/Annotations/480p/dogs-jump/00033.png"
    annotation = open_layout("davis", shared_data / "DAVIS", "val").clip(0, [33]).annotation
    ids = np.asarray(Image.open(path))
    for segment in annotation.segments:
        assert np.array_equal(decode_region(segment.masks[0], annotation.size), ids == segment.track_id)


REAL = {
    "VIPSeg_from_camvid": "vipseg",
    "youtubevis": "youtube_vis",
    "DAVIS": "davis",
    "DAVIS_interactive_sample": "davis",
    "DAVIS_first_frames": "davis",
    "vspw_vos": "youtube_vos",
    "sav_sample_no_video": "sa_v",
    "CamVid": "camvid",
}


def test_layouts_of_videos_are_found_first_in_their_folders_and_claim_no_others(shared_data):
    folders = [folder for folder in sorted(shared_data.iterdir()) if folder.is_dir()]
    assert len(folders) >= 16
    found = {folder.name: [detection.layout.name for detection in detect_layouts(folder)] for folder in folders}
    first = {name: kinds[0] for name, kinds in found.items() if kinds and kinds[0] in set(REAL.values())}
    assert first == REAL
    strangers = {name: kinds for name, kinds in found.items() if name not in REAL and set(kinds) & set(REAL.values())}
    assert strangers == {}
