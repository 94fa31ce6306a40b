"""Pictures in every form give the same RGB array; everything else is refused with a message that helps."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.processing import PictureNotFoundError, read_picture


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_lossless_form_gives_the_same_pixels(pixels, tmp_path):
    image = Image.fromarray(pixels)
    data = encoded(image)
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    tensor = torch.from_numpy(pixels)
    forms = [
        path, str(path), data, bytearray(data), io.BytesIO(data), image, pixels, pixels.transpose(2, 0, 1), tensor,
        tensor.permute(2, 0, 1), pixels.astype(np.int64), pixels.astype(np.uint16) * 257, pixels / 255.0,
        tensor.permute(2, 0, 1).float() / 255,
    ]  # fmt: skip
    for form in forms:
        result = read_picture(form)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("shape", [(7, 11), (7, 11, 1), (1, 7, 11)])
def test_a_grey_array_is_repeated_to_three_channels(shape):
    grey = np.arange(77, dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(read_picture(grey), np.repeat(grey.reshape(7, 11, 1), 3, axis=2))


def test_ambiguous_shapes_are_channels_last_for_arrays_and_channels_first_for_tensors():
    values = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    np.testing.assert_array_equal(read_picture(values), values)
    np.testing.assert_array_equal(read_picture(torch.from_numpy(values)), values.transpose(1, 2, 0))


def test_transparent_pixels_are_shown_on_white(pixels):
    alpha = np.zeros((7, 11, 1), np.uint8)
    alpha[:, 5:] = 255
    rgba = np.concatenate([pixels, alpha], 2)
    for form in (rgba, rgba.transpose(2, 0, 1), Image.fromarray(rgba), encoded(Image.fromarray(rgba))):
        result = read_picture(form)
        assert (result[:, :5] == 255).all()
        np.testing.assert_array_equal(result[:, 5:], pixels[:, 5:])


def test_a_palette_with_a_transparent_colour_is_shown_on_white():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    result = read_picture(encoded(image, transparency=0))
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[1, 1].tolist() == [0, 255, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV"])
def test_every_colour_mode_becomes_rgb(mode, pixels):
    image = Image.fromarray(pixels).convert(mode)
    expected = np.array(image.convert("RGBA").convert("RGB"))
    np.testing.assert_array_equal(read_picture(image), expected)


def test_a_16_bit_grey_png_keeps_its_brightness(tmp_path):
    deep = np.linspace(0, 65535, 77).astype(np.uint16).reshape(7, 11)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    expected = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(path)[..., 0], expected)
    np.testing.assert_array_equal(read_picture(deep)[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, pixels):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read_picture(encoded(image, exif=exif.tobytes()))
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(pixels, 1),
    }  # fmt: skip
    np.testing.assert_array_equal(result, turned[orientation])


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (10, 20000), (20000, 10)])
def test_extreme_shapes_are_read(size):
    assert read_picture(encoded(Image.new("RGB", size[::-1]))).shape == (*size, 3)


def test_the_result_can_be_written_even_when_the_source_cannot(pixels):
    pixels.flags.writeable = False
    assert read_picture(pixels).flags.writeable


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PictureNotFoundError, match=r"no picture at .*nowhere\.png"):
        read_picture(tmp_path / "nowhere.png")


@pytest.mark.parametrize("url", ["https://example.org/cat.jpg", "file:///cat.jpg", "data:image/png;base64,AA"])
def test_a_url_says_download_it_first(url):
    with pytest.raises(ValueError, match="download it first"):
        read_picture(url)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_picture(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ValueError, match=r"empty\.jpg.*0 bytes"):
        read_picture(path)
    with pytest.raises(ValueError, match="0 bytes"):
        read_picture(b"")


def test_a_file_that_is_no_picture_is_named(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.jpg.*not a picture"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_named(kind, share, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"half\.\w+"):
        read_picture(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    array = np.zeros((4, 5, 3), np.float32)
    array[2, 3, 1] = bad
    for form in (array, torch.from_numpy(array)):
        with pytest.raises(ValueError, match="1 values that are NaN or infinite"):
            read_picture(form)


def test_floats_in_0_to_255_are_told_to_divide():
    with pytest.raises(ValueError, match="Divide by 255"):
        read_picture(np.full((4, 5, 3), 128.0))


def test_normalised_floats_are_refused():
    with pytest.raises(ValueError, match="before any normalisation"):
        read_picture(np.full((4, 5, 3), -1.5))


@pytest.mark.parametrize(
    ("shape", "message"), [((5,), "1 axes"), ((2, 4, 5, 3), "batch or a clip"), ((5, 6, 7), "no axis")]
)
def test_a_wrong_rank_or_channel_count_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        read_picture(np.zeros(shape, np.uint8))


def test_an_empty_array_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        read_picture(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("source", [None, 5, {"image": 1}])
def test_other_kinds_are_a_type_error(source):
    with pytest.raises(TypeError, match="give a path"):
        read_picture(source)


def test_text_arrays_are_a_type_error():
    with pytest.raises(TypeError, match="expected uint8"):
        read_picture(np.array([["a", "b"]]))


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises a huge picture, and no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(ValueError, match=r"limit.*max_pixels"):
        read_picture(bomb(side, side))


def test_the_pixel_limit_can_be_raised_and_lowered(pixels):
    with pytest.raises(ValueError, match="77 pixels, above the limit of 76"):
        read_picture(encoded(Image.fromarray(pixels)), max_pixels=76)
    assert read_picture(pixels, max_pixels=77).shape == (7, 11, 3)
