"""Prompts that start from the features where they point, and lone prompts that are corrected."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.model.grounding import features_at

SIZE = (64, 96)
POINTS = torch.tensor([[[[20.0, 30.0]], [[60.0, 40.0]]]])
BOXES = torch.tensor([[[4.0, 4.0, 40.0, 50.0], [30.0, 2.0, 90.0, 30.0]]])


def build(**settings):
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(prompt_grounding=True, **settings)).eval()
    parts = [model.query_decoder.grounding, model.query_decoder.correction]
    with torch.no_grad():  # as after training: both start as no change
        for parameter in (value for part in parts if part is not None for value in part.parameters()):
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def picture(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prompts", [{"input_points": POINTS}, {"input_boxes": BOXES}])
def test_grounding_changes_the_answers_to_prompts(prompts):
    grounded, plain = build(), build()
    torch.nn.init.zeros_(plain.query_decoder.grounding.projection.weight)
    torch.nn.init.zeros_(plain.query_decoder.grounding.projection.bias)
    with torch.inference_mode():
        pixels = picture(*SIZE)
        difference = grounded(pixels, **prompts).mask_logits - plain(pixels, **prompts).mask_logits
        learned = grounded(pixels).mask_logits - plain(pixels).mask_logits
    assert difference.abs().max() > 1e-3
    assert not learned.any()


@pytest.mark.parametrize("prompts", [{"input_points": POINTS}, {"input_boxes": BOXES}])
def test_padding_changes_no_answer_to_a_lone_prompt(prompts):
    model = build(prompt_correction=True, single_prompt_correction=True).double()
    pixels = picture(*SIZE).double()
    padded, mask = torch.zeros(1, 3, 96, 128).double(), torch.zeros(1, 96, 128)
    padded[:, :, : SIZE[0], : SIZE[1]], mask[:, : SIZE[0], : SIZE[1]] = pixels, 1
    with torch.inference_mode():
        plain = model(pixels, **prompts).mask_logits
        answer = model(padded, mask, **prompts).mask_logits[..., : SIZE[0] // 4, : SIZE[1] // 4]
    torch.testing.assert_close(answer, plain, atol=1e-5, rtol=1e-5)


def test_a_lone_prompt_is_corrected_only_where_the_configuration_says_so():
    pixels = picture(*SIZE)
    answers = []
    for single in (False, True):
        model = build(prompt_correction=True, single_prompt_correction=single)
        with torch.inference_mode():
            answers.append(model(pixels, input_boxes=BOXES).mask_logits)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_single_prompt_correction_needs_the_correction():
    with pytest.raises(StrictDataclassClassValidationError, match="prompt_correction is off"):
        OMGSegConfig.tiny(single_prompt_correction=True)


def test_features_are_read_where_the_points_are():
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    features = torch.stack([rows, columns])[None]
    points = torch.tensor([[[[1.5 / 6, 2.5 / 4], [0.0, 0.0]]]])  # the middle of cell (2, 1); a corner
    found = features_at(features, points, torch.tensor([[4.0, 6.0]]))
    torch.testing.assert_close(found, torch.tensor([[[[2.0, 1.0], [0.0, 0.0]]]]))
