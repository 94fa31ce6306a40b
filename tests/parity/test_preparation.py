"""Pixels reach the model as the original's do: ImageNet mean and deviation, then zeros right and below.

And its `predict` gives what ours gives: the last prediction, masks resized to the padded input.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

from .conftest import assert_close

CLASS, MASK, OTHER = 2e-3, 1e-3, 1e-4
PICTURES = {"image_forward": "pixel_values", "prompt_forward": "pixel_values", "prompt_prep": "inputs"}
CLIPS = ("video_forward", "minvis")


@pytest.fixture(scope="module")
def processor():
    return OMGSegProcessor(OMGSegImageProcessor(do_resize=False))


def require_content(pixel_mask, size):
    expected = torch.zeros_like(pixel_mask)
    expected[..., : size[0], : size[1]] = True
    assert torch.equal(pixel_mask, expected)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(golden, processor, name):
    reference = golden(name)
    pictures = reference["image_u8"]
    inputs = processor(list(pictures))
    assert_close(inputs["pixel_values"], reference[PICTURES[name]], OTHER)
    require_content(inputs["pixel_mask"], pictures.shape[-2:])


@pytest.mark.parametrize("name", CLIPS)
def test_clips(golden, processor, name):
    reference = golden(name)
    clips = reference["image_u8"]
    inputs = processor(videos=[list(clip) for clip in clips])
    assert_close(inputs["pixel_values"], reference["pixel_values"], OTHER)
    require_content(inputs["pixel_mask"], clips.shape[-2:])


def test_padding_is_zero_after_normalisation(golden, processor):
    """Not black: zeros padded before normalisation would be about -2."""
    reference = golden("image_forward")
    height, width = reference["image_u8"].shape[-2:]
    pixels = processor(list(reference["image_u8"]))["pixel_values"]
    assert pixels[..., height:, :].numel() + pixels[..., width:].numel() > 0
    assert not pixels[..., height:, :].any()
    assert not pixels[..., width:].any()


@pytest.mark.parametrize("name", ["image_forward", "video_forward"])
def test_predict_is_the_last_layer_with_masks_at_the_size_of_the_input(golden, model, class_embeds, name):
    reference = golden(name)
    with torch.no_grad():
        output = model(reference["pixel_values"], class_embeds=class_embeds)
    assert_close(output.class_logits, reference["predict.cls"], CLASS)
    assert_close(output.iou_logits[..., None], reference["predict.iou"], OTHER)
    size = reference["pixel_values"].shape[-2:]
    masks = functional.interpolate(output.mask_logits.flatten(1, 2), size=size, mode="bilinear")
    masks = masks.unflatten(1, output.mask_logits.shape[1:3])
    if name == "image_forward":
        assert_close(masks[:, :, 0], reference["predict.mask"], MASK)
    else:
        assert_close(masks[0, :, 1], reference["predict.mask_clip0_frame1"], MASK)
