"""J&F of folders of palette PNGs: what is read, and what is said about files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from omg_transformers.metrics.davis_folders import read_id_map, score_davis_folders
from omg_transformers.metrics.video_object import VideoObjectQuality


def write(path, ids, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in range(3)])
    (image.convert("RGB") if mode == "RGB" else image).save(path)


@pytest.fixture
def folders(tmp_path):
    maps = np.zeros((4, 12, 16), dtype=np.uint8)
    maps[:, 2:6, 2:7], maps[:, 7:11, 8:14] = 1, 2
    for name in ("bear", "tennis"):
        for frame, ids in enumerate(maps):
            write(tmp_path / "truth" / name / f"{frame:05}.png", ids)
            write(tmp_path / "found" / name / f"{frame:05}.png", ids)
    (tmp_path / "val.txt").write_text("bear\ntennis\n")
    return tmp_path


def score(folders, *arguments, **options):
    return score_davis_folders(folders / "truth", folders / "found", *arguments, **options)


def test_equal_folders_score_one(folders):
    for sequences in (None, ["bear", "tennis"], folders / "val.txt"):
        metric = score(folders, sequences)
        assert metric.compute()["j_and_f"] == 1.0
        assert {row["sequence"] for row in metric.per_object()} == {"bear", "tennis"}
        assert metric.skipped == []


def test_folders_score_like_the_maps_in_them(folders):
    damaged = read_id_map(folders / "found/bear/00001.png").copy()
    damaged[:4] = 0
    write(folders / "found/bear/00001.png", damaged)
    truth = np.stack([read_id_map(path) for path in sorted((folders / "truth/bear").iterdir())])
    found = np.stack([read_id_map(path) for path in sorted((folders / "found/bear").iterdir())])
    for task in ("semi-supervised", "unsupervised"):
        expected = VideoObjectQuality(task)
        expected.update_maps(found, truth, name="bear")
        metric = score(folders, ["bear"], metric=VideoObjectQuality(task))
        assert metric.compute() == expected.compute()
        assert metric.compute()["j_mean"] < 1


def test_grey_pngs_hold_ids_as_well(folders):
    write(folders / "found/bear/00001.png", read_id_map(folders / "truth/bear/00001.png"), mode="L")
    assert score(folders, ["bear"]).compute()["j_and_f"] == 1.0


def test_the_given_first_and_the_last_frame_need_not_be_predicted(folders):
    (folders / "found/bear/00000.png").unlink()
    (folders / "found/bear/00003.png").unlink()
    assert score(folders, ["bear"]).compute()["j_and_f"] == 1.0
    with pytest.raises(ValueError, match=r"bear lacks 2 of 4 frames: 00000\.png, 00003\.png"):
        score(folders, ["bear"], metric=VideoObjectQuality("unsupervised"))


def test_what_is_not_scored_is_listed(folders):
    write(folders / "found/bear/00009.png", np.zeros((12, 16)))
    assert score(folders, ["bear"]).skipped == [
        "tennis: not among the sequences that are scored",
        "bear/00009.png: there is no truth for it",
    ]


def test_a_missing_frame_is_named_before_anything_is_counted(folders):
    (folders / "found/tennis/00002.png").unlink()
    metric = VideoObjectQuality()
    with pytest.raises(ValueError, match=r"tennis lacks 1 of 2 frames: 00002\.png"):
        score(folders, metric=metric)
    assert metric.objects == []


def test_a_frame_of_another_size_is_named(folders):
    write(folders / "found/bear/00002.png", np.zeros((11, 16)))
    with pytest.raises(ValueError, match=r"found.bear.00002\.png has size \(11, 16\), its truth \(12, 16\)"):
        score(folders)
    write(folders / "truth/bear/00001.png", np.zeros((11, 16)))
    with pytest.raises(ValueError, match=r"truth.bear.00001\.png has size \(11, 16\), 00000\.png \(12, 16\)"):
        score(folders)


def test_ids_that_do_not_exist_are_named_with_their_frame(folders):
    write(folders / "found/bear/00002.png", np.full((12, 16), 7))
    with pytest.raises(ValueError, match=r"the ids 7 \(first in bear/00002\.png\), but the truth has the ids 1 to 2"):
        score(folders)


def test_pictures_in_place_of_ids_are_refused(folders):
    write(folders / "found/bear/00001.png", np.zeros((12, 16)), mode="RGB")
    with pytest.raises(ValueError, match=r"00001\.png has mode RGB: expected one whole number per pixel"):
        score(folders)
    (folders / "found/bear/00001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"00001\.png is missing or not a readable PNG"):
        score(folders)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (["bear", "swan"], "truth.swan is not there"),
        (["bear", "bear"], "sequences holds bear more than once"),
        ([], "there is none in"),
        ("nowhere.txt", "there is no such file"),
    ],
)
def test_sequences_that_cannot_be_scored_are_refused(folders, sequences, message):
    with pytest.raises(ValueError, match=message):
        score(folders, sequences)


def test_a_sequence_that_is_too_short_stops_before_the_first_is_read(folders):
    (folders / "truth/bear/00000.png").write_bytes(b"broken")
    for frame in (1, 2):
        (folders / f"truth/tennis/0000{frame}.png").unlink()
    with pytest.raises(ValueError, match=r"tennis has 2 frames: semi-supervised scoring leaves out"):
        score(folders)


def test_folders_that_do_not_exist_are_refused(folders):
    with pytest.raises(ValueError, match=r"truth .*nowhere is not there: expected a folder such as DAVIS's"):
        score_davis_folders(folders / "nowhere", folders / "found")
    with pytest.raises(ValueError, match=r"nowhere is missing|nowhere.bear is missing"):
        score_davis_folders(folders / "truth", folders / "nowhere")
    (folders / "truth/empty").mkdir()
    (folders / "found/empty").mkdir()
    with pytest.raises(ValueError, match=r"truth.empty is an empty folder: expected one PNG"):
        score(folders)


def test_real_palette_folders_score_one_against_themselves(shared_data):
    truth = shared_data / "DAVIS/Annotations/480p"
    metric = score_davis_folders(truth, truth, ["car-shadow"])
    assert metric.compute()["j_and_f"] == 1.0
    assert [row["frames"] for row in metric.per_object()] == [len(list((truth / "car-shadow").iterdir())) - 2]
