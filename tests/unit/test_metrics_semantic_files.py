"""Mean IoU and video consistency of folders of class PNGs: what is read, paired, noted and refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from omg_transformers.metrics.label_png import describe_folder, read_label_png
from omg_transformers.metrics.semantic import MeanIoU
from omg_transformers.metrics.semantic_folders import (
    ClassMaps,
    pair_pngs,
    score_semantic_folders,
    score_video_semantic_folders,
)
from omg_transformers.metrics.video_semantic import VideoSemanticQuality


def write(path, values, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(dtype)).save(path)


def scene(seed, shape=(12, 17), classes=3):
    return np.random.default_rng(seed).integers(0, classes, shape)


@pytest.fixture
def pictures(tmp_path):
    for number, name in enumerate(("a", "b", "deep/c")):
        write(tmp_path / f"truth/{name}.png", scene(number))
        write(tmp_path / f"found/{name}.png", scene(number + 10))
    return tmp_path


@pytest.fixture
def videos(tmp_path):
    for video, length in (("long", 10), ("short", 1)):
        for frame in range(length):
            write(tmp_path / f"truth/{video}/mask/{frame:03}.png", scene(0))
            write(tmp_path / f"found/{video}/{frame:03}.png", scene(frame % 2))
    return tmp_path


def score(folder, num_classes=3, **options):
    return score_semantic_folders(folder / "truth", folder / "found", num_classes, **options)


def score_videos(folder, num_classes=3, **options):
    return score_video_semantic_folders(folder / "truth", folder / "found", num_classes, **options)


def test_folders_score_like_the_maps_in_them(pictures):
    metric = MeanIoU(3)
    for number in range(3):
        metric.update_maps(scene(number + 10), scene(number))
    result = score(pictures)
    assert result.compute() == metric.compute()
    assert result.names == ("a", "b", "deep/c")
    assert result.notes == ()


def test_progress_sees_every_picture(pictures):
    seen = []
    score(pictures, progress=lambda names: seen.extend(names) or seen)
    assert seen == ["a", "b", "deep/c"]


def test_palettes_and_16_bit_hold_the_same_classes(tmp_path):
    write(tmp_path / "deep.png", scene(1), np.uint16)
    image = Image.fromarray(scene(1).astype(np.uint8))
    image.putpalette([7] * 768)
    image.save(tmp_path / "palette.png")
    for name in ("deep", "palette"):
        np.testing.assert_array_equal(read_label_png(tmp_path / f"{name}.png"), scene(1))


def test_superfluous_predictions_are_listed(pictures):
    write(pictures / "found/more.png", scene(0))
    (note,) = score(pictures).notes
    assert "1 files left out" in note
    assert note.endswith("more")


def test_missing_predictions_stop_before_any_picture_is_read(pictures):
    (pictures / "truth/a.png").write_bytes(b"broken")
    (pictures / "found/deep/c.png").unlink()
    with pytest.raises(ValueError, match=r"a folder with 2 \.png, 1 folder \(deep\): it lacks 1 of 3 .* deep/c\.png"):
        score(pictures)


def test_sizes_that_differ_name_both_files(pictures):
    write(pictures / "found/b.png", scene(0, (11, 17)))
    with pytest.raises(ValueError, match=r"found.b\.png is 11 x 17, .*truth.b\.png is 12 x 17 \(height x width\)"):
        score(pictures)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"a\.png is missing or not a readable PNG"), (None, r"a\.png has mode RGB: expected one whole number")],
)
def test_files_without_class_numbers_are_refused(pictures, content, message):
    path = pictures / "found/a.png"
    if content is None:
        Image.new("RGB", (17, 12)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        score(pictures)


def test_a_wrong_layout_says_what_was_found(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "some.json").write_text("[]")
    for path, message in (("nowhere", "is not there"), ("some.json", r"is a file \(\.json\)")):
        with pytest.raises(ValueError, match=rf"truth .*{message}: expected a folder of PNGs"):
            score_semantic_folders(tmp_path / path, pictures / "found", 3)
    with pytest.raises(ValueError, match=r"is an empty folder: expected PNGs"):
        score_semantic_folders(tmp_path / "empty", pictures / "found", 3)
    assert describe_folder(pictures / "truth") == "a folder with 2 .png, 1 folder (deep)"


def test_two_pngs_of_one_name_are_refused(pictures):
    write(pictures / "found/a.PNG", scene(0))
    with pytest.raises(ValueError, match=r"holds both a\.PNG and a\.png: keep one"):
        pair_pngs(pictures / "truth", pictures / "found")


class TestValuesThatAreNoClass:
    def test_void_needs_no_note(self, pictures):
        values = scene(0)
        values[0] = 255
        write(pictures / "truth/a.png", values)
        assert score(pictures).notes == ()

    def test_others_are_counted_and_said_to_be_left_out(self, pictures):
        values = scene(0)
        values[0, :5] = 77
        write(pictures / "truth/a.png", values)
        (note,) = score(pictures).notes
        assert note.startswith("truth: 5 pixels in 1 files (a) have the value 77")
        assert note.endswith("they are left out")

    def test_with_an_ignore_index_they_count_against_what_is_predicted(self, pictures):
        values = scene(0)
        values[0, :5] = 77
        write(pictures / "truth/a.png", values)
        result = score(pictures, ignore_index=255)
        assert "counts as wrong" in result.notes[0]
        assert result.compute()["miou"] < score(pictures).compute()["miou"]

    def test_in_predictions_they_are_misses(self, pictures):
        write(pictures / "found/a.png", np.full((12, 17), 255))
        result = score(pictures)
        assert "prediction: 204 pixels in 1 files (a) have the value 255" in result.notes[0]
        metric = MeanIoU(3)
        metric.update_maps(np.full((12, 17), -1), scene(0))
        for number in (1, 2):
            metric.update_maps(scene(number + 10), scene(number))
        assert result.compute() == metric.compute()


@pytest.mark.parametrize(("reduction", "shift"), [("truth", 0), ("both", 1)])
def test_reduced_maps_count_classes_from_one(tmp_path, reduction, shift):
    truth = scene(3) + 1
    truth[0], truth[1] = 0, 255
    write(tmp_path / "truth/a.png", truth)
    write(tmp_path / "found/a.png", scene(4) + shift)
    metric = MeanIoU(3)
    metric.update_maps(scene(4), np.where((truth == 0) | (truth == 255), -1, truth - 1))
    result = score(tmp_path, reduction=reduction)
    assert result.compute() == metric.compute()
    assert result.notes == ()


def test_rules_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"num_classes is 0"):
        ClassMaps(0)
    with pytest.raises(ValueError, match=r"reduction is 'all': expected None, 'truth' or 'both'"):
        ClassMaps(3, reduction="all")
    with pytest.raises(ValueError, match=r"ignore_index is 7: reduced maps have void 0 and 255"):
        ClassMaps(3, ignore_index=7, reduction="truth")


def test_no_labelled_pixel_gives_no_figure(tmp_path):
    write(tmp_path / "truth/a.png", np.full((4, 5), 255))
    write(tmp_path / "found/a.png", np.zeros((4, 5)))
    assert all(map(math.isnan, score(tmp_path).compute().values()))


def test_videos_score_like_their_maps_and_short_ones_are_named(videos):
    metric = VideoSemanticQuality(3)
    for video, length in (("long", 10), ("short", 1)):
        truth, found = ([scene(frame % step) for frame in range(length)] for step in (1, 2))
        metric.update_maps(np.stack(found), np.stack(truth), name=video)
    result = score_videos(videos)
    assert {name: result.compute()[name] for name in ("miou", "mvc8")} == {
        name: metric.compute()[name] for name in ("miou", "mvc8")
    }
    assert math.isnan(result.compute()["mvc16"])
    assert result.num_frames == 11
    assert "short: 1 frames, mvc8 needs more than 8" in result.notes


def test_chosen_videos_leave_the_others_out(videos):
    result = score_videos(videos, videos=["long"])
    assert result.names == ("long",)
    assert any("1 videos left out, short" in note for note in result.notes)


def test_videos_of_other_length_are_refused_or_noted(videos):
    write(videos / "found/short/001.png", scene(0))
    assert any("there is no truth for 001" in note for note in score_videos(videos).notes)
    (videos / "found/long/004.png").unlink()
    with pytest.raises(ValueError, match=r"found.long is a folder with 9 \.png: it lacks 1 of 10 files, 004\.png"):
        score_videos(videos)


def test_missing_videos_and_frames_of_other_size_are_named(videos):
    with pytest.raises(ValueError, match=r"truth .*lacks 1 of 2 videos, wide"):
        score_videos(videos, videos=["long", "wide"])
    write(videos / "truth/long/mask/003.png", scene(0, (4, 5)))
    write(videos / "found/long/003.png", scene(0, (4, 5)))
    with pytest.raises(ValueError, match=r"long.mask: its frames have the sizes \[\(4, 5\), \(12, 17\)\]"):
        score_videos(videos)


def test_a_folder_of_pictures_is_no_folder_of_videos(pictures):
    for path in (pictures / "truth/deep").iterdir():
        path.unlink()
    (pictures / "truth/deep").rmdir()
    with pytest.raises(ValueError, match=r"truth is a folder with 2 \.png: expected one folder of PNGs per video"):
        score_videos(pictures)


def test_camvid_against_itself_is_perfect(shared_data):
    folder = shared_data / "CamVid/valannot"
    result = score_semantic_folders(folder, folder, 11)
    assert len(result.names) == 30
    assert result.compute()["miou"] == 1.0
    assert "value 11, which is none of the classes: they are left out" in result.notes[-1]
