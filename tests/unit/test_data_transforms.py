"""Transforms: frames and masks stay together, sizes are what was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import EvalTransform, ProceduralScenes, SampleError, TrainTransform
from omg_transformers.data.regions import decode_region, encode_region
from omg_transformers.data.transforms import Geometry, color_matrix, recolor
from omg_transformers.labels import LabelSpace
from omg_transformers.structures import Annotation, Sample, Segment

SPACE = LabelSpace.from_names(["blob"])


def blob_sample(size=(90, 130), num_frames=1):
    """Frames that are white exactly where the mask is; the lower left corner is void."""
    masks, frames = [], []
    for frame in range(num_frames):
        mask = np.zeros(size, bool, order="F")
        mask[15:60, 30 + frame : 100] = True
        mask[30:40, 50:60] = False
        masks.append(encode_region(mask))
        frames.append(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255)
    void = np.zeros(size, bool, order="F")
    void[80:, :20] = True
    annotation = Annotation(size, (True,), (Segment(0, tuple(masks), 1),), (encode_region(void),) * num_frames)
    return Sample("blob", tuple(frames), annotation, SPACE, ("panoptic",))


def agreement(sample, frame=0):
    """Share of pixels where the frame is white just where the mask is."""
    white = sample.frames[frame][..., 0] > 127
    mask = np.zeros(sample.annotation.size, bool)
    for segment in sample.annotation.segments:
        mask |= decode_region(segment.masks[frame], sample.annotation.size)
    return (white == mask).mean()


PLAIN = TrainTransform((64, 80), color_jitter=0, min_area=1)


@pytest.mark.parametrize("seed", range(12))
def test_masks_follow_their_frame(seed):
    result = PLAIN(blob_sample(), np.random.default_rng(seed))
    assert result.frames[0].shape == (*result.annotation.size, 3)
    assert agreement(result) > 0.98


def test_all_frames_of_a_clip_get_one_geometry():
    result = PLAIN(blob_sample(num_frames=3), np.random.default_rng(2))
    assert len(result.frames) == result.annotation.num_frames == 3
    assert min(agreement(result, frame) for frame in range(3)) > 0.98


def test_the_window_never_passes_the_size():
    transform = TrainTransform((64, 80), scale=(0.3, 3))
    sizes = {transform(blob_sample(), np.random.default_rng(seed)).annotation.size for seed in range(30)}
    assert max(size[0] for size in sizes) == 64 and max(size[1] for size in sizes) == 80
    assert min(size[0] for size in sizes) < 32


def test_what_is_too_small_becomes_void_and_what_is_outside_goes():
    sample = blob_sample()
    tiny = np.zeros((90, 130), bool, order="F")
    tiny[2:4, 2:4] = True
    segment = Segment(0, (encode_region(tiny),), 2)
    sample = replace(sample, annotation=replace(sample.annotation, segments=(segment,), void=(None,)))
    inside = Geometry((90, 130), (90, 130), (0, 0), (50, 50)).apply(sample, min_area=10).annotation
    assert inside.segments == () and decode_region(inside.void[0], (50, 50))[2:4, 2:4].all()
    outside = Geometry((90, 130), (90, 130), (40, 40), (50, 50)).apply(sample, min_area=10).annotation
    assert outside.segments == () and outside.void == (None,)


def test_an_unscaled_window_is_an_exact_crop():
    sample = ProceduralScenes((40, 50), seed=1).sample(0)
    result = Geometry((40, 50), (40, 50), (7, 11), (20, 30)).apply(sample)
    assert np.array_equal(result.frames[0], sample.frames[0][7:27, 11:41])
    before = {segment.track_id: segment.masks[0] for segment in sample.annotation.segments if segment.track_id > 0}
    for segment in result.annotation.segments:
        if segment.track_id > 0:
            crop = decode_region(before[segment.track_id], (40, 50))[7:27, 11:41]
            assert np.array_equal(decode_region(segment.masks[0], (20, 30)), crop)


def test_evaluation_keeps_the_picture_and_its_shape():
    sample = blob_sample()
    assert EvalTransform()(sample).annotation == sample.annotation
    assert EvalTransform(shortest_side=45)(sample).annotation.size == (45, 65)
    assert EvalTransform(longest_side=65)(sample).annotation.size == (45, 65)
    assert EvalTransform(shortest_side=90, longest_side=65)(sample).annotation.size == (45, 65)
    assert agreement(EvalTransform(shortest_side=180)(sample)) > 0.98


def test_a_one_pixel_picture_survives():
    sample = Sample(
        "dot", (np.zeros((1, 1, 3), np.uint8),), Annotation((1, 1), (True,), (), (None,)), SPACE, ("panoptic",)
    )
    assert min(TrainTransform((32, 32))(sample, np.random.default_rng(0)).annotation.size) >= 1
    assert EvalTransform(longest_side=8)(sample).annotation.size == (8, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_files_and_bytes_decode_like_arrays(tmp_path, suffix):
    sample = blob_sample()
    path = tmp_path / f"blob.{suffix}"
    Image.fromarray(sample.frames[0]).save(path, quality=95)
    transform = TrainTransform((64, 80), color_jitter=0, scale=(0.5, 0.5))
    for frame in (path, path.read_bytes()):
        result = transform(replace(sample, frames=(frame,)), np.random.default_rng(0))
        assert agreement(result) > 0.97


def test_a_damaged_picture_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(SampleError, match=r"cut\.jpg \(blob\) cannot be decoded"):
        EvalTransform()(replace(blob_sample(), frames=(path,)))


def test_a_file_that_is_no_picture_is_named(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(SampleError, match=r"text\.jpg \(blob\) is not a readable picture"):
        EvalTransform()(replace(blob_sample(), frames=(path,)))


def test_a_frame_of_another_size_than_its_annotation_is_named():
    with pytest.raises(SampleError, match="frame of blob is 10 high and 20 wide"):
        EvalTransform()(replace(blob_sample(), frames=(np.zeros((10, 20, 3), np.uint8),)))


def test_a_float_frame_is_refused():
    with pytest.raises(SampleError, match="expected uint8"):
        EvalTransform()(replace(blob_sample(), frames=(np.zeros((90, 130, 3)),)))


def test_colour_jitter_changes_colours_only():
    sample = ProceduralScenes((40, 50), seed=1).sample(0)
    results = [
        TrainTransform((40, 50), scale=(1, 1), flip_probability=0, color_jitter=amount)(
            sample, np.random.default_rng(3)
        )
        for amount in (0, 0.4)
    ]
    assert results[0].annotation == results[1].annotation
    assert not np.array_equal(results[0].frames[0], results[1].frames[0])


def test_no_jitter_is_the_identity_and_grey_stays_grey():
    matrix = color_matrix(np.random.default_rng(0), 0.0)
    assert np.allclose(matrix, np.eye(3, 4), atol=1e-9)
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert np.ptp(recolor(grey, color_matrix(np.random.default_rng(1), 0.4)), axis=-1).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "size is"),
        ({"scale": (2, 1)}, "scale is"),
        ({"flip_probability": 2}, "flip_probability is 2"),
        ({"color_jitter": 1}, "color_jitter is 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(**options)


def test_an_evaluation_side_below_one_pixel_is_refused():
    with pytest.raises(ValueError, match="shortest_side is 0"):
        EvalTransform(shortest_side=0)
