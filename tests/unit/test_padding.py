"""Padding never changes an answer: a picture alone and in a mixed-size batch agree, for each backbone that can.

The model runs in double precision (its sampling and its cosines stay in float32), so that what is left is padding and
not the rounding of one processor or another.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from omg_transformers.model.padding import Content
from omg_transformers.testing import tiny_model

from .test_model import BACKBONES, class_embeds

SAFE = [kind for kind in BACKBONES if "swin" not in kind]
# Odd, unequal, not multiples of anything; one that fills its padded size exactly.
SIZES = [(64, 96), (37, 53), (75, 41), (96, 64)]


TOLERANCE = {"rtol": 0, "atol": 1e-4}


def batch_of(pictures, size):
    pixels = torch.stack([F.pad(p, (0, size[1] - p.shape[2], 0, size[0] - p.shape[1])) for p in pictures])
    mask = torch.stack(
        [F.pad(torch.ones(p.shape[1:]), (0, size[1] - p.shape[2], 0, size[0] - p.shape[1])) for p in pictures]
    )
    return pixels, mask.bool()


def alone(picture):
    height, width = (-(-side // 32) * 32 for side in picture.shape[1:])
    return batch_of([picture], (height, width))


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in SIZES]


def mask_cells(output, index, size):
    """The mask logits that the picture can see."""
    height, width = (-(-side // 4) for side in size)
    return output.mask_logits[index, :, :, :height, :width]


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("kind", SAFE)
def test_alone_equals_in_a_batch(kind, refined, pictures):
    model = tiny_model(**BACKBONES[kind], mask_refinement=refined).double()
    if refined:
        torch.nn.init.normal_(model.query_decoder.refinement.output_convolution.weight)
    embeds = class_embeds(model).double()
    with torch.no_grad():
        together = model(*batch_of(pictures, (96, 128)), class_embeds=embeds)
        for index, picture in enumerate(pictures):
            single = model(*alone(picture), class_embeds=embeds)
            size = picture.shape[1:]
            ours, theirs = mask_cells(together, index, size), mask_cells(single, 0, size)
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
            torch.testing.assert_close(together.class_logits[index], single.class_logits[0], **TOLERANCE)
            torch.testing.assert_close(together.iou_logits[index], single.iou_logits[0], **TOLERANCE)


def test_prompts_in_a_batch_equal_prompts_alone(pictures):
    model = tiny_model().double()
    boxes = torch.tensor([[[3.0, 5.0, 30.0, 33.0], [10.0, 2.0, 40.0, 20.0]]], dtype=torch.float64)
    with torch.no_grad():
        together = model(*batch_of(pictures, (96, 128)), input_boxes=boxes.expand(len(pictures), -1, -1))
        for index, picture in enumerate(pictures):
            single = model(*alone(picture), input_boxes=boxes)
            size = picture.shape[1:]
            ours, theirs = mask_cells(together, index, size), mask_cells(single, 0, size)
            torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_clips_in_a_batch_equal_clips_alone():
    model = tiny_model().double()
    generator = torch.Generator().manual_seed(4)
    small, large = (
        torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) for size in ((45, 70), (96, 128))
    )
    pixels = torch.stack([F.pad(small, (0, 58, 0, 51)), large])
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[0, :45, :70], mask[1] = True, True
    single_mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    single_mask[0, :45, :70] = True
    with torch.no_grad():
        together = model(pixels, mask)
        single = model(F.pad(small, (0, 26, 0, 19))[None], single_mask)
    ours, theirs = mask_cells(together, 0, (45, 70)), mask_cells(single, 0, (45, 70))
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_frames_encoded_one_by_one_equal_frames_at_once(pictures, monkeypatch):
    model = tiny_model().double()
    pixels, mask = batch_of(pictures, (96, 128))
    clips = torch.stack([pixels, pixels.flip(-1)], dim=1)
    with torch.no_grad():
        at_once = model(clips, mask)
        monkeypatch.setattr("omg_transformers.model.modeling.PIXELS_AT_ONCE", 1)
        one_by_one = model(clips, mask)
    torch.testing.assert_close(one_by_one.mask_logits, at_once.mask_logits, **TOLERANCE)


def test_what_lies_in_the_padding_is_never_read(pictures):
    model = tiny_model().double()
    pixels, mask = batch_of(pictures, (96, 128))
    noisy = torch.where(mask[:, None], pixels, torch.randn_like(pixels) * 50)
    with torch.no_grad():
        clean, dirty = model(pixels, mask), model(noisy, mask)
    torch.testing.assert_close(clean.iou_logits, dirty.iou_logits, **TOLERANCE)


def test_windows_do_leak_which_is_why_such_pictures_are_grouped(pictures):
    """The guard against a claim that is not true: if Swin stops leaking, it may join the safe ones."""
    model = tiny_model(**BACKBONES["swin"]).double()
    with torch.no_grad():
        together = model(*batch_of(pictures, (96, 128)))
        single = model(*alone(pictures[1]))
    size = pictures[1].shape[1:]
    assert (mask_cells(together, 1, size) - mask_cells(single, 0, size)).abs().max() > 1e-4


def test_a_full_mask_equals_no_mask():
    model = tiny_model().double()
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        masked = model(pixels, torch.ones(1, 64, 96, dtype=torch.bool))
        plain = model(pixels)
    torch.testing.assert_close(masked.mask_logits, plain.mask_logits, **TOLERANCE)


def test_content_is_counted_in_cells_rounded_up():
    mask = torch.zeros(2, 64, 96)
    mask[0, :33, :96], mask[1, :1, :65] = 1, 1
    content = Content.from_pixel_mask(mask, (64, 96))
    assert content.sizes.tolist() == [[33, 96], [1, 65]]
    assert content.cells((2, 3)).tolist() == [[2, 3], [1, 3]]
    assert content.cells((16, 24)).tolist() == [[9, 24], [1, 17]]


def test_edges_are_replicated_into_the_padding():
    mask = torch.zeros(1, 32, 32)
    mask[0, :8, :12] = 1
    content = Content.from_pixel_mask(mask, (32, 32))
    features = torch.arange(64.0).view(1, 1, 8, 8)
    filled = content.replicate_edges(features)[0, 0]
    assert filled[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert filled[5].tolist() == [8, 9, 10, 10, 10, 10, 10, 10]
