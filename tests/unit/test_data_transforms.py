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


def test_frames_of_a_clip_may_have_windows_of_their_own_which_their_masks_follow():
    transform = replace(PLAIN, scale=(1.5, 1.5), shares_window=False)
    sample = blob_sample(num_frames=1)
    still = replace(
        sample,
        frames=sample.frames * 3,
        annotation=replace(
            sample.annotation,
            segments=(Segment(0, sample.annotation.segments[0].masks * 3, 1),),
            void=sample.annotation.void * 3,
        ),
    )
    result = transform(still, np.random.default_rng(1))
    assert {frame.shape for frame in result.frames} == {(*result.annotation.size, 3)}
    assert min(agreement(result, frame) for frame in range(3)) > 0.98
    assert not np.array_equal(result.frames[0], result.frames[1])
    assert result.annotation.segments[0].track_id == 1


def test_a_still_clip_that_shares_its_window_stands_still():
    sample = ProceduralScenes((60, 80), seed=1).sample(0)
    still = replace(
        sample, frames=sample.frames * 2, annotation=replace(sample.annotation, segments=(), void=(None,) * 2)
    )
    result = TrainTransform((32, 32), scale=(1.5, 1.5))(still, np.random.default_rng(1))
    assert np.array_equal(*result.frames)


def test_windows_of_a_still_clip_are_mirrored_together():
    scenes = ProceduralScenes((40, 40), num_objects=(0, 0), seed=1)
    sample = scenes.sample(0)
    ramp = np.zeros((40, 40, 3), np.uint8)
    ramp[:] = np.arange(40, dtype=np.uint8)[None, :, None] * 6
    still = replace(sample, frames=(ramp,) * 2, annotation=replace(sample.annotation, segments=(), void=(None,) * 2))
    transform = TrainTransform((24, 24), scale=(1.6, 1.6), color_jitter=0, shares_window=False)
    for seed in range(8):
        first, second = transform(still, np.random.default_rng(seed)).frames
        assert (first[0, -1, 0] > first[0, 0, 0]) == (second[0, -1, 0] > second[0, 0, 0])


@pytest.mark.parametrize("source_size", [(480, 640), (640, 480), (360, 1240), (1240, 360), (736, 1280), (1280, 736)])
@pytest.mark.parametrize("ratio", [0.1, 0.8, 2.0])
def test_sizes_of_the_original_can_be_expressed(source_size, ratio):
    """Its resize fits the longer side into 1280 * ratio and the shorter into 736 * ratio, then cuts out 736 x 1280."""
    transform = TrainTransform((736, 1280), scale=(ratio, ratio), draw="uniform", turns=True, color_jitter=0)
    factor = min(1280 * ratio / max(source_size), 736 * ratio / min(source_size))
    expected = tuple(min(side, round(length * factor)) for side, length in zip((736, 1280), source_size, strict=True))
    frame = np.zeros((*source_size, 3), np.uint8)
    sample = Sample("grey", (frame,), Annotation(source_size, (True,), ()), SPACE, ("panoptic",))
    assert transform(sample, np.random.default_rng(0)).annotation.size == expected


def test_an_upright_picture_stays_smaller_unless_the_size_turns():
    sample = blob_sample((120, 60))
    sizes = [
        replace(PLAIN, size=(60, 120), scale=(1, 1), turns=turns)(sample, np.random.default_rng(0)).annotation.size
        for turns in (False, True)
    ]
    assert sizes == [(60, 30), (60, 60)]


@pytest.mark.parametrize(("draw", "share"), [("uniform", 0.5 / 1.9), ("log_uniform", np.log(6) / np.log(20))])
def test_scales_are_drawn_as_asked(draw, share):
    """What comes below 0.6 of the range (0.1, 2.0)."""
    transform = TrainTransform((20, 20), scale=(0.1, 2.0), draw=draw, color_jitter=0)
    sample = Sample("grey", (np.zeros((20, 20, 3), np.uint8),), Annotation((20, 20), (True,), ()), SPACE, ("panoptic",))
    rng = np.random.default_rng(0)
    sizes = [transform(sample, rng).annotation.size[0] for _ in range(800)]
    assert np.mean(np.array(sizes) < 12) == pytest.approx(share, abs=0.06)


def test_an_unknown_draw_is_refused():
    with pytest.raises(ValueError, match="draw is 'normal': expected 'log_uniform' or 'uniform'"):
        TrainTransform(draw="normal")


def test_a_repeated_picture_is_decoded_once(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    opened = []
    real_open = Image.open
    monkeypatch.setattr(Image, "open", lambda *words, **named: opened.append(words) or real_open(*words, **named))
    annotation = Annotation((10, 20), (True,), (), (None, None))
    sample = Sample("still", (path, path), annotation, SPACE, ("panoptic",))
    assert len(EvalTransform()(sample).frames) == 2
    assert len(opened) == 1
