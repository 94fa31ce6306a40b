"""Frames of samples, decoded late: pictures of every mode as the pipeline shows them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import SampleError
from omg_transformers.data.frames import decode_frame, turn_hint
from omg_transformers.processing.pictures import read_picture

SIZE = (6, 10)
GREY = np.arange(60, dtype=np.uint8).reshape(SIZE) * 4


def pictures():
    colours = Image.fromarray(np.stack([GREY, 255 - GREY, GREY // 2], -1))
    transparent = colours.convert("RGBA")
    transparent.putalpha(Image.fromarray(GREY))
    return {
        "grey.png": Image.fromarray(GREY),
        "deep.png": Image.fromarray(GREY.astype(np.uint16) * 257),
        "deep.tif": Image.fromarray(GREY.astype(np.uint16) * 257),
        "float.tif": Image.fromarray(GREY.astype(np.float32) / 255),
        "bit.png": Image.fromarray(GREY > 100),
        "palette.png": colours.convert("P"),
        "transparent.png": transparent,
        "transparent.webp": transparent,
        "colours.bmp": colours,
        "print.jpg": colours.convert("CMYK"),
    }


@pytest.mark.parametrize("name", sorted(pictures()))
def test_a_frame_looks_as_the_pipeline_sees_it(tmp_path, name):
    pictures()[name].save(tmp_path / name)
    frame = decode_frame(tmp_path / name, name=name, expected_size=SIZE)
    assert frame.mode == "RGB" and np.array_equal(np.asarray(frame), read_picture(tmp_path / name))


def test_floats_that_are_no_shades_are_named(tmp_path):
    Image.fromarray(np.full(SIZE, 300, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(SampleError, match=r"a\.tif.*holds values from 300"):
        decode_frame(tmp_path / "a.tif", name="a", expected_size=SIZE)


@pytest.mark.parametrize(("turn", "size", "is_told"), [(6, SIZE[::-1], True), (3, SIZE[::-1], False), (6, SIZE, False)])
def test_a_turned_picture_is_told_when_that_explains_the_sizes(tmp_path, turn, size, is_told):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    assert ("EXIF" in turn_hint(tmp_path / "a.jpg", size)) == is_told
