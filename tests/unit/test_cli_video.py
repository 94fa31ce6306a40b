"""`omg-seg video`: every format, Ctrl-C, bad input; and the writers by themselves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.cli import main
from omg_transformers.formats import read_id_png, read_json_lines, segments_from_dict
from omg_transformers.formats.davis import davis_palette, object_map, write_davis_png
from omg_transformers.formats.json_lines import JsonLines
from omg_transformers.formats.video_file import VideoFile
from omg_transformers.formats.vipseg import VipsegResults
from omg_transformers.formats.youtube_vis import YoutubeVisResults
from omg_transformers.inference.frames import open_frames
from omg_transformers.labels import LabelSpace
from omg_transformers.metrics.davis_folders import read_id_map
from omg_transformers.ops.masks import decode_rle, encode_masks
from omg_transformers.structures import Segments

from .test_frames import write_video
from .test_pipeline import build

pytest.importorskip("av", reason="PyAV is not installed: pip install omg-transformers[video]")
SPACE = LabelSpace.from_names(["person", "grass"], things=["person"])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    build().save_pretrained(folder)
    return str(folder)


def save_clip(folder: Path, count: int = 5, size=(41, 61)) -> Path:
    """A texture that moves to the right."""
    folder.mkdir()
    scene = np.random.default_rng(0).integers(0, 256, (size[0], size[1] + 3 * count, 3), dtype=np.uint8)
    for index in range(count):
        Image.fromarray(scene[:, 3 * index : 3 * index + size[1]]).save(folder / f"f{index}.png")
    return folder


def frame_segments(ids_at_columns: dict[int, tuple[int, int]], labels: dict[int, int]) -> Segments:
    """One frame of 6 x 20 pixels; id -> columns."""
    id_map = torch.zeros(1, 6, 20, dtype=torch.int32)
    for identity, (left, right) in ids_at_columns.items():
        id_map[..., left:right] = identity
    ids = sorted(ids_at_columns)
    return Segments(
        (6, 20),
        torch.tensor(ids, dtype=torch.long),
        torch.tensor([labels[identity] for identity in ids], dtype=torch.long),
        torch.tensor([0.5 + identity / 100 for identity in ids]),
        id_map=id_map,
    )


def test_every_format_says_the_same(model, tmp_path, capsys):
    clip, out = save_clip(tmp_path / "clip"), tmp_path / "deep" / "out"
    formats = ["overlay", "davis", "vipseg", "youtube_vis", "jsonl"]
    arguments = ["video", str(clip), "--model", model, "--out", str(out), "--formats", *formats]
    assert main([*arguments, "--fps", "12"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "clip.jsonl", "clip.mp4", "davis", "labels.json", "pan_pred", "pred.json", "youtube_vis.json",
    ]  # fmt: skip
    movie = open_frames(out / "clip.mp4")
    assert [frame.shape for frame in movie] == [(42, 62, 3)] * 5  # yuv420p has even sizes only
    assert movie.fps == 12
    lines = list(read_json_lines(out / "clip.jsonl"))
    assert [(line["frame"], line["index"]) for line in lines] == [(f"f{index}", index) for index in range(5)]
    results = [segments_from_dict(line) for line in lines]
    assert any(len(segments) for segments in results)
    space = LabelSpace.from_dict(json.loads((out / "labels.json").read_text()))
    (video,) = json.loads((out / "pred.json").read_text())["annotations"]
    assert video["video_id"] == "clip"
    tracks = json.loads((out / "youtube_vis.json").read_text())
    assert {len(track["segmentations"]) for track in tracks} <= {5}
    for index, segments in enumerate(results):
        name = f"f{index}.png"
        np.testing.assert_array_equal(read_id_png(out / "pan_pred" / "clip" / name), segments.id_map[0])
        np.testing.assert_array_equal(read_id_map(out / "davis" / "clip" / name), segments.id_map[0])
        infos = {info["id"]: info["category_id"] for info in video["annotations"][index]["segments_info"]}
        rows = zip(segments.ids.tolist(), segments.labels.tolist(), strict=True)
        assert infos == {identity: space.dataset_ids[label] for identity, label in rows}
        for track in tracks:
            rle = track["segmentations"][index]
            seen = segments.id_map[0] == track["id"]
            assert (rle is None) == (not seen.any())
            if rle is not None:
                assert torch.equal(decode_rle({**rle, "counts": rle["counts"].encode()}), seen)
    assert "5 frames, " in capsys.readouterr().out


def test_a_video_file_is_read_and_keeps_its_speed(model, tmp_path):
    movie = VideoFile(tmp_path / "in.mp4", fps=24)
    for frame in open_frames(save_clip(tmp_path / "clip", 3, (40, 60))):
        movie.add(frame)
    movie.close()
    out = tmp_path / "out"
    arguments = ["video", str(tmp_path / "in.mp4"), "--model", model, "--out", str(out)]
    assert main([*arguments, "--mode", "offline", "--window", "2", "--labels", "dog, sky"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["in.mp4", "labels.json"]
    written = open_frames(out / "in.mp4")
    assert written.fps == 24
    assert len(list(written)) == 3


def test_a_video_that_was_cut_off_is_answered_as_far_as_it_goes_and_named(model, tmp_path, capsys):
    path = write_video(tmp_path / "cut.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    out = tmp_path / "out"
    arguments = ["video", str(path), "--model", model, "--out", str(out), "--formats", "overlay", "jsonl"]
    assert main(arguments) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "cut off" in printed
    count = len(list(open_frames(out / "cut.mp4")))
    assert 0 < count < 12
    assert f"Until then: {count} frames" in printed
    assert main([*arguments, "--skip-broken"]) == 1
    printed = capsys.readouterr()
    assert f"{count} frames, " in printed.out
    assert f"left out: frame {count:05d}: " in printed.err
    assert len(list(read_json_lines(out / "cut.jsonl"))) == count


def test_a_broken_frame_stops_with_valid_files_or_is_left_out_and_named(model, tmp_path, capsys):
    clip = save_clip(tmp_path / "clip")
    (clip / "f2.png").write_bytes(b"broken")
    arguments = ["video", str(clip), "--model", model, "--out", str(tmp_path / "out"), "--formats", "overlay", "jsonl"]
    assert main(arguments) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "f2.png" in printed
    assert "Until then: 2 frames" in printed
    assert len(list(open_frames(tmp_path / "out" / "clip.mp4"))) == 2
    assert main([*arguments, "--skip-broken", "--formats", "jsonl", "youtube_vis"]) == 1
    printed = capsys.readouterr()
    assert "4 frames" in printed.out
    assert "left out: frame f2: " in printed.err
    lines = list(read_json_lines(tmp_path / "out" / "clip.jsonl"))
    assert [(line["frame"], line["index"]) for line in lines] == [("f0", 0), ("f1", 1), ("f3", 3), ("f4", 4)]
    for track in json.loads((tmp_path / "out" / "youtube_vis.json").read_text()):
        assert len(track["segmentations"]) == 5
        assert track["segmentations"][2] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "2", "--overlap", "2"], "overlap is 2"),
        (["--task", "panoptik"], "panoptik"),
        (["--labels", "unicorn"], "unicorn"),
        (["--task", "video_instance", "--formats", "vipseg"], "may overlap"),
    ],
)
def test_a_wrong_wish_is_one_line_and_keeps_what_was_there(model, tmp_path, capsys, arguments, message):
    clip, out = save_clip(tmp_path / "clip", 2), tmp_path / "out"
    out.mkdir()
    (out / "clip.mp4").write_text("of an earlier run")
    assert main(["video", str(clip), "--model", model, "--out", str(out), *arguments]) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("omg-seg: error: ")
    assert message in printed
    assert (out / "clip.mp4").read_text() == "of an earlier run"


def test_a_speed_that_no_film_has_is_wrong_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["video", "clip", "--fps", "-3"])
    assert "-3: expected frames per second" in capsys.readouterr().err


def test_frames_of_different_sizes_are_refused_and_what_was_done_is_kept(model, tmp_path, capsys):
    clip = save_clip(tmp_path / "clip", 3)
    Image.new("RGB", (20, 20)).save(clip / "f2.png")
    assert main(["video", str(clip), "--model", model, "--out", str(tmp_path / "out")]) == 1
    assert "20 x 20" in capsys.readouterr().err
    assert len(list(open_frames(tmp_path / "out" / "clip.mp4"))) == 2


def start(clip: Path, model: str, out: Path, *arguments: str) -> subprocess.Popen:
    """`omg-seg video` in a process of its own, on 2,000 frames."""
    for index in range(2, 2000):
        os.link(clip / f"f{index % 2}.png", clip / f"f{index}.png")
    command = [sys.executable, "-m", "omg_transformers", "video", str(clip), "--model", model, "--out", str(out)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_playable_mp4_and_valid_files(model, tmp_path, number, status):
    clip, out = save_clip(tmp_path / "clip", 2), tmp_path / "out"
    process = start(clip, model, out, "--formats", "overlay", "vipseg", "youtube_vis", "jsonl")
    wait_until(lambda: len(list((out / "pan_pred" / "clip").glob("f*.png"))) >= 5, process)
    process.send_signal(number)
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == status, printed
    count = len(list(read_json_lines(out / "clip.jsonl")))
    assert 5 <= count < 2000
    told = printed.splitlines()[-1]
    assert told.startswith("omg-seg: stopped by ")
    assert f": {count} frames, " in told
    assert told.endswith(str(out))
    assert len(list(open_frames(out / "clip.mp4"))) == count
    (video,) = json.loads((out / "pred.json").read_text())["annotations"]
    assert len(video["annotations"]) == count == len(list((out / "pan_pred" / "clip").iterdir()))
    assert all(len(track["segmentations"]) == 2000 for track in json.loads((out / "youtube_vis.json").read_text()))
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_sigterm_while_an_offline_video_is_read_ends_it_before_anything_is_written(model, tmp_path):
    out = tmp_path / "out"
    process = start(save_clip(tmp_path / "clip", 2), model, out, "--mode", "offline")
    wait_until(lambda: handles(process, signal.SIGTERM), process)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == 143, printed
    assert "nothing was written" in printed.splitlines()[-1]
    assert not list(out.iterdir())


def handles(process: subprocess.Popen, number: signal.Signals) -> bool:
    """Whether it has a handler of its own for a signal, as Linux tells it."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells which signals a process handles")
    (caught,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_an_mp4_appears_whole_and_frames_of_another_size_are_refused(tmp_path):
    movie = VideoFile(tmp_path / "a.mp4", fps=29.97)
    movie.add(np.zeros((7, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="the video's frames are"):
        movie.add(np.zeros((9, 7, 3), np.uint8))
    assert not (tmp_path / "a.mp4").exists()
    assert movie.close() == tmp_path / "a.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert VideoFile(tmp_path / "none.mp4", fps=5).close() is None


def test_davis_pngs_hold_ids_and_the_palette_of_the_data_set(tmp_path, shared_data):
    segments = frame_segments({1: (0, 5), 200: (5, 9)}, {1: -1, 200: -1})
    path = write_davis_png(tmp_path / "a.png", segments)
    np.testing.assert_array_equal(read_id_map(path), segments.id_map[0])
    found = sorted((shared_data / "DAVIS" / "Annotations" / "480p").rglob("*.png"))
    assert found
    assert Image.open(found[0]).getpalette() == Image.open(path).getpalette() == davis_palette().ravel().tolist()


def test_of_objects_that_overlap_the_davis_png_shows_the_surer_one():
    masks = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    masks[0, ..., :4], masks[1, ..., 2:] = True, True
    segments = Segments(
        (4, 6), torch.tensor([1, 2]), torch.tensor([-1, -1]), torch.tensor([0.9, 0.4]),
        rles=tuple(encode_masks(mask) for mask in masks),
    )  # fmt: skip
    assert object_map(segments)[0].tolist() == [1, 1, 1, 1, 2, 2]


def test_an_id_that_a_davis_png_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="id 256"):
        write_davis_png(tmp_path / "a.png", frame_segments({256: (0, 5)}, {256: -1}))


def test_a_youtube_vis_track_has_a_mask_or_null_for_every_frame(tmp_path):
    results = YoutubeVisResults(tmp_path / "r.json", "v", SPACE)
    labels = {1: 0, 2: 1, 7: 0}
    results.add(0, frame_segments({1: (0, 5), 2: (5, 9)}, labels))
    results.add(2, frame_segments({7: (3, 5)}, labels))
    results.add(3, frame_segments({1: (1, 5), 7: (9, 12)}, labels))
    with pytest.raises(ValueError, match="frame 3 comes after frame 3"):
        results.add(3, frame_segments({}, labels))
    results.close(6)
    tracks = {track["id"]: track for track in json.loads((tmp_path / "r.json").read_text())}
    assert sorted(tracks) == [1, 7]  # 2 is stuff
    present = {key: [rle is not None for rle in track["segmentations"]] for key, track in tracks.items()}
    assert present == {1: [True, False, False, True, False, False], 7: [False, False, True, True, False, False]}
    assert tracks[1]["category_id"] == SPACE.dataset_ids[0]
    assert tracks[7]["score"] == pytest.approx(0.57)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_youtube_vis_track_has_its_mean_score_and_its_most_frequent_class(tmp_path):
    space = LabelSpace.from_names(["person", "dog"], things=["person", "dog"])
    results = YoutubeVisResults(tmp_path / "r.json", "v", space)
    for position, (label, score) in enumerate([(1, 0.9), (0, 0.4), (1, 0.5)]):
        segments = frame_segments({1: (0, 5)}, {1: label})
        results.add(2 * position, dataclasses.replace(segments, scores=torch.tensor([score])))
    results.close(9)
    (track,) = json.loads((tmp_path / "r.json").read_text())
    assert track["score"] == pytest.approx(0.6)
    assert track["category_id"] == space.dataset_ids[1]


def test_an_empty_video_gives_valid_files(tmp_path):
    YoutubeVisResults(tmp_path / "r.json", "v", SPACE).close(3)
    assert json.loads((tmp_path / "r.json").read_text()) == []
    VipsegResults(tmp_path, 'a "quoted" name', SPACE).close()
    content = json.loads((tmp_path / "pred.json").read_text())
    assert content["annotations"] == [{"video_id": 'a "quoted" name', "annotations": []}]
    assert [label["name"] for label in content["categories"]] == ["person", "grass"]


def test_json_lines_appear_when_they_are_complete(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.add({"a": "ä"})
    assert not (tmp_path / "a.jsonl").exists()
    lines.close()
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"a": "ä"}\n'


def save_mask(path: Path, size=(41, 61)) -> Path:
    """Two objects, 3 and 9."""
    ids = np.zeros(size, np.uint8)
    ids[5:25, 5:25], ids[20:40, 40:60] = 3, 9
    Image.fromarray(ids).save(path)
    return path


def test_objects_of_a_mask_keep_its_ids(model, tmp_path):
    clip, out = save_clip(tmp_path / "clip"), tmp_path / "out"
    mask = save_mask(tmp_path / "first.png")
    arguments = ["video", str(clip), "--model", model, "--out", str(out), "--formats", "davis", "jsonl"]
    assert main([*arguments, "--mask", str(mask)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["clip.jsonl", "davis"]
    first = read_id_map(out / "davis" / "clip" / "f0.png")
    assert set(np.unique(first)) == {0, 3, 9}
    assert (first == np.asarray(Image.open(mask))).mean() > 0.9
    for line in read_json_lines(out / "clip.jsonl"):
        assert [segment["id"] for segment in line["segments"]] == [3, 9]


def test_points_boxes_and_masks_may_show_different_objects(model, tmp_path):
    clip, out = save_clip(tmp_path / "clip", 2), tmp_path / "out"
    arguments = ["video", str(clip), "--model", model, "--out", str(out), "--formats", "jsonl"]
    shown = ["--box", "2,3,30,30", "--follow", "50,20 55,30", "--follow", "10,30"]
    assert main([*arguments, "--mask", str(save_mask(tmp_path / "first.png")), *shown]) == 0
    lines = list(read_json_lines(out / "clip.jsonl"))
    assert [[segment["id"] for segment in line["segments"]] for line in lines] == [[3, 9, 10, 11, 12]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "video_object"], "give --follow, --box or --mask"),
        (["--follow", "1,2", "--task", "video_panoptic"], "--task video_panoptic does not"),
        (["--box", "1,2,3,4", "--labels", "dog", "--window", "2"], "--labels, --window cannot be used with --box"),
        (["--follow", "500,2"], "500"),
        (["--box", "30,2,10,8"], "30"),
        (["--mask", "EMPTY"], "shows no object"),
        (["--mask", "missing.png"], "missing.png"),
        (["--mask", "SMALL"], "20"),
    ],
)
def test_what_cannot_be_followed_is_one_line(model, tmp_path, capsys, arguments, message):
    clip = save_clip(tmp_path / "clip", 2)
    places = {"EMPTY": tmp_path / "empty.png", "SMALL": tmp_path / "small.png"}
    Image.new("L", (61, 41)).save(places["EMPTY"])
    Image.new("L", (20, 20), 255).save(places["SMALL"])
    given = [str(places.get(word, word)) for word in arguments]
    assert main(["video", str(clip), "--model", model, "--out", str(tmp_path / "out"), *given]) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("omg-seg: error: ")
    assert message in printed


def test_a_point_that_is_none_is_wrong_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["video", "clip", "--follow", "1,2,3"])
    assert "expected x,y in pixels of the first frame" in capsys.readouterr().err
