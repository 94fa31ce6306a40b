"""Videos of every kind, read frame by frame; damaged ones."""

from __future__ import annotations

import importlib
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_transformers.formats.container_length import announced_bytes
from omg_transformers.inference.frames import open_frames

av = pytest.importorskip("av", reason="PyAV is not installed: pip install omg-transformers[video]")


def picture(index: int, size=(24, 32)):
    pixels = np.full((*size, 3), 5 * index + 20, np.uint8)
    pixels[:8, :8] = (255, 0, 0)
    return pixels


def write_video(path: Path, count: int = 12, size=(24, 32), rate=Fraction(30000, 1001), **options) -> Path:
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "4", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 256, (8, size[1], 3), dtype=np.uint8)
            pixels = picture(index, size)
            pixels[-8:] = noise
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_folder(folder: Path, names) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / name)
    return folder


def shades(reader) -> list[int]:
    """Which frames came, by their grey."""
    return [round((float(frame[10, 20].mean()) - 20) / 5) for frame in reader]


def test_a_folder_is_read_in_the_natural_order_of_its_names(tmp_path):
    folder = write_folder(tmp_path / "clip", ["f1.png", "f2.png", "f10.png", "f011.jpg"])
    (folder / "notes.txt").touch()
    (folder / ".f3.png").touch()
    reader = open_frames(folder)
    assert (reader.name, reader.num_frames, reader.fps) == ("clip", 4, None)
    assert shades(reader) == [0, 1, 2, 3]
    assert [reader.frame_name(index) for index in range(4)] == ["f1", "f2", "f10", "f011"]


def test_one_picture_is_a_video_of_one_frame(tmp_path):
    write_folder(tmp_path / "clip", ["a.png"])
    assert shades(open_frames(str(tmp_path / "clip" / "a.png"))) == [0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_video_file_gives_its_frames_in_order(tmp_path, suffix):
    reader = open_frames(write_video(tmp_path / f"clip.{suffix}"))
    assert reader.name == "clip"
    assert reader.fps == pytest.approx(29.97, abs=0.01)
    frames = list(reader)
    assert {(frame.shape, str(frame.dtype)) for frame in frames} == {((24, 32, 3), "uint8")}
    assert shades(frames) == list(range(12))
    assert reader.frame_name(3) == "00003"


def test_a_reader_starts_again_at_the_first_frame(tmp_path):
    reader = open_frames(write_video(tmp_path / "clip.mp4"))
    assert shades(reader)[:2] == shades(reader)[:2] == [0, 1]


def test_a_phones_turn_is_applied_as_for_pictures(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 2)
    content = path.read_bytes()
    upright = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    clockwise = b"".join(
        value.to_bytes(4, "big") for value in (0, 1 << 16, 0, (-1 << 16) % (1 << 32), 0, 0, 0, 0, 1 << 30)
    )
    place = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:place] + clockwise + content[place + 36 :])
    frame = next(iter(open_frames(path)))
    assert frame.shape == (32, 24, 3)
    assert frame[2, 21, 0] > 200 > frame[2, 2, 0]  # the red corner went from the left to the right


def test_an_iterator_is_read_once_and_lazily():
    read = []

    def items():
        for index in range(3):
            read.append(index)
            yield Image.fromarray(picture(index)) if index else picture(0)

    reader = open_frames(items())
    assert not read
    assert not reader.is_repeatable
    stream = iter(reader)
    assert next(stream).shape == (24, 32, 3)
    assert read == [0]
    assert shades(stream) == [1, 2]


def test_a_list_of_frames_is_a_video():
    reader = open_frames([picture(0), picture(1)])
    assert reader.num_frames == 2
    assert reader.is_repeatable
    assert shades(reader) == [0, 1]


def test_frames_are_not_held(tmp_path):
    """All but the latest frame are freed while the video is read."""
    path = write_video(tmp_path / "clip.mp4")
    seen = []
    for frame in open_frames(path):
        seen.append(weakref.ref(frame))
        del frame
        assert sum(reference() is not None for reference in seen) <= 1


def test_memory_does_not_grow_with_the_video():
    def endless(count):
        return (np.zeros((50, 50, 3), np.uint8) for _ in range(count))

    def grown(count):
        tracemalloc.start()
        for _ in open_frames(endless(count)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    grown(5)
    assert grown(2000) < grown(20) + 20_000


def damaged_folder(tmp_path) -> Path:
    folder = write_folder(tmp_path / "clip", [f"{index}.png" for index in range(5)])
    for index in (1, 2):
        (folder / f"{index}.png").write_bytes((folder / f"{index}.png").read_bytes()[:60])
    return folder


def test_an_unreadable_frame_in_a_folder_stops_and_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"1\.png") as caught:
        list(open_frames(damaged_folder(tmp_path)))
    assert "on_error='skip'" in caught.value.__notes__[0]


def test_an_unreadable_frame_in_a_folder_is_skipped_and_named_by_option(tmp_path):
    reader = open_frames(damaged_folder(tmp_path), on_error="skip")
    assert shades(reader) == [0, 3, 4]
    assert [reader.frame_name(index) for index in range(3)] == ["0", "3", "4"]
    assert [reader.position(index) for index in range(3)] == [0, 3, 4]
    assert [line.split(":")[0] for line in reader.skipped] == ["frame 1", "frame 2"]


def test_damage_inside_a_video_file_stops_or_is_skipped(tmp_path):
    path = write_video(tmp_path / "clip.mkv", 24)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        list(open_frames(path))
    reader = open_frames(path, on_error="skip")
    assert 0 < len(shades(reader)) < 24
    assert reader.skipped
    assert "damaged" in reader.skipped[0]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_a_video_that_was_cut_off_gives_what_it_has_and_is_named(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix in ("mp4", "mov") else {}
    path = write_video(tmp_path / f"clip.{suffix}", 24, options=options)
    assert announced_bytes(path) == path.stat().st_size
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    reader, frames = open_frames(path), []
    with pytest.raises(ValueError, match=r"cut off|damaged"):
        frames.extend(reader)
    reader = open_frames(path, on_error="skip")
    found = shades(reader)
    assert found[:3] == [0, 1, 2]
    assert len(found) < 24
    assert "is cut off: it has" in reader.skipped[-1]


def test_a_stream_that_does_not_tell_its_length_is_no_cut_off_video(tmp_path):
    path = write_video(tmp_path / "live.mkv", options={"live": "1"})
    assert announced_bytes(path) is None
    assert shades(open_frames(path)) == list(range(12))


def test_what_follows_an_mp4_is_no_part_of_it(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\xff\xff\xff\xffnote")
    assert announced_bytes(path) == size
    assert len(shades(open_frames(path))) == 12


@pytest.mark.parametrize(
    "content", [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\0\0", b"\0\0\0\0ftyp", b"no video at all"]
)
def test_a_file_without_readable_boxes_tells_no_length(tmp_path, content):
    path = tmp_path / "odd.mkv"
    path.write_bytes(content)
    assert announced_bytes(path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"no video " * 100, "cannot be opened as a video"), (None, "cannot be opened as a video")],
)
def test_what_is_no_video_is_refused_at_once(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    if content is None:  # without its index, which is written last
        content = write_video(path).read_bytes()[:-2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_frames(path)


def test_a_file_of_sound_only_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no video stream"):
        open_frames(path)


@pytest.mark.parametrize("frames", [[], [b"broken", b"broken"]])
def test_a_video_without_a_readable_frame_is_refused(frames):
    with pytest.raises(ValueError, match="has no frame that can be read"):
        list(open_frames(frames, on_error="skip"))


def test_a_missing_video_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no video at"):
        open_frames(tmp_path / "no.mp4")
    with pytest.raises(ValueError, match="holds no frames"):
        open_frames(tmp_path)


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="camera:93"):
        open_frames("camera:93")


@pytest.mark.parametrize("source", [b"bytes", 3, None])
def test_other_kinds_are_refused(source):
    with pytest.raises(TypeError, match="a video is of type"):
        open_frames(source)


def test_a_wrong_policy_is_refused():
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        open_frames([picture(0)], on_error="ignore")


def test_without_pyav_the_extra_is_named_and_folders_still_work(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 2)
    real = importlib.import_module

    def refuse(name, *rest):
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest)

    monkeypatch.setattr("omg_transformers.formats.video_file.import_module", refuse)
    assert len(list(open_frames(write_folder(tmp_path / "clip", ["0.png"])))) == 1
    with pytest.raises(ImportError, match=r"omg-transformers\[video\]"):
        open_frames(path)
