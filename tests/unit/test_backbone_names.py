"""The second opinion on names, read from the backbone's own maps inside each mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omg_transformers import OMGSegConfig, OMGSegModel
from omg_transformers.model.classifier import BackboneNames, fuse_opinions
from omg_transformers.testing import tiny_model
from omg_transformers.training.loss import LossSettings, SegmentationLoss

from .test_loss import make_predictions, make_targets, run
from .test_model import class_embeds, pictures
from .test_padding import SIZES, TOLERANCE, alone, batch_of


@pytest.fixture(scope="module")
def model() -> OMGSegModel:
    return tiny_model(backbone_names=True)


def opinion_of(names: BackboneNames, features: torch.Tensor, masks: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return names(features, masks, embeds)


def test_a_model_without_it_has_no_weights_for_it():
    assert not [name for name in tiny_model().state_dict() if "backbone_names" in name]


def test_answers_hold_both_opinions_as_one(model):
    embeds = class_embeds(model)
    with torch.no_grad():
        asked = model(pictures(), class_embeds=embeds, output_auxiliary=True)
        answer = model(pictures(), class_embeds=embeds)
    assert asked.backbone_class_logits.shape == (2, model.config.num_queries, 5)
    assert answer.backbone_class_logits is None
    expected = fuse_opinions(asked.class_logits, asked.backbone_class_logits, model.config.backbone_names_exponent)
    assert torch.allclose(answer.class_logits, expected, atol=1e-5)


def test_the_decoder_alone_decides_on_void(model):
    embeds = class_embeds(model)
    with torch.no_grad():
        asked = model(pictures(), class_embeds=embeds, output_auxiliary=True)
        answer = model(pictures(), class_embeds=embeds)
    void = asked.class_logits.softmax(-1)[..., -1]
    assert torch.allclose(answer.class_logits.softmax(-1)[..., -1], void, atol=1e-6)


def test_an_exponent_of_zero_leaves_the_names_to_the_decoder():
    model = tiny_model(backbone_names=True, backbone_names_exponent=0.0)
    embeds = class_embeds(model)
    with torch.no_grad():
        own = model(pictures(), class_embeds=embeds, output_auxiliary=True).class_logits.softmax(-1)
        assert torch.allclose(model(pictures(), class_embeds=embeds).class_logits.softmax(-1), own, atol=1e-6)


def test_a_name_is_that_of_the_cells_inside_the_mask():
    names = BackboneNames(2, OMGSegConfig.tiny(text_dim=2)).eval()
    torch.nn.init.eye_(names.projection.weight)
    torch.nn.init.zeros_(names.projection.bias)
    features = torch.zeros(1, 2, 1, 2, 4)
    features[:, 0, ..., :2], features[:, 1, ..., 2:] = 1.0, 1.0
    masks = torch.full((1, 2, 1, 8, 16), -1.0)
    masks[:, 0, ..., :8], masks[:, 1, ..., 8:] = 1.0, 1.0
    assert opinion_of(names, features, masks, torch.eye(2)[:, None])[0].argmax(-1).tolist() == [0, 1]


def test_a_cell_counts_by_the_share_of_it_that_is_inside():
    names = BackboneNames(3, OMGSegConfig.tiny(text_dim=3)).eval()
    features = torch.randn(1, 3, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    masks = torch.full((1, 1, 1, 4, 8), -1.0)
    masks[..., :6] = 1.0  # all of the first cell, half of the second
    mean = (2 * features[..., :1] + features[..., 1:]) / 3
    whole = opinion_of(names, mean, torch.ones(1, 1, 1, 4, 4), torch.eye(3)[:, None])
    assert torch.allclose(opinion_of(names, features, masks, torch.eye(3)[:, None]), whole, atol=1e-4)


def test_an_empty_mask_has_no_opinion():
    names = BackboneNames(2, OMGSegConfig.tiny(text_dim=2)).eval()
    found = opinion_of(names, torch.randn(1, 2, 1, 2, 2), torch.full((1, 1, 1, 8, 8), -1.0), torch.eye(2)[:, None])
    assert found.tolist() == [[[0.0, 0.0]]]


def test_a_picture_is_named_alone_as_in_a_batch():
    model = tiny_model(backbone_names=True).double()
    embeds = class_embeds(model).double()
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in SIZES]
    with torch.no_grad():
        together = model(*batch_of(found, (96, 128)), class_embeds=embeds)
        for index, picture in enumerate(found):
            own = model(*alone(picture), class_embeds=embeds)
            torch.testing.assert_close(own.class_logits[0], together.class_logits[index], **TOLERANCE)


def test_a_clip_of_equal_frames_is_named_as_its_picture():
    names = BackboneNames(4, OMGSegConfig.tiny(text_dim=4)).eval()
    generator = torch.Generator().manual_seed(0)
    features, masks = torch.randn(1, 4, 1, 2, 3, generator=generator), torch.randn(1, 5, 1, 8, 12, generator=generator)
    embeds = torch.eye(4)[:, None]
    clip = opinion_of(names, features.repeat(1, 1, 3, 1, 1), masks.repeat(1, 1, 3, 1, 1), embeds)
    assert torch.allclose(clip, opinion_of(names, features, masks, embeds), atol=1e-4)


def test_it_teaches_nothing_but_its_own_weights():
    model = tiny_model(backbone_names=True)
    output = model(pictures(), class_embeds=class_embeds(model), output_auxiliary=True)
    output.backbone_class_logits.square().sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {name for name in model.state_dict() if "backbone_names" in name}


def test_prompts_have_it_too(model):
    points = torch.tensor([[[[30.0, 20.0]], [[60.0, 40.0]]]]).repeat(2, 1, 1, 1)
    with torch.no_grad():
        output = model(pictures(), class_embeds=class_embeds(model), input_points=points, output_auxiliary=True)
    assert output.backbone_class_logits.shape == (2, 2, 5)


def test_several_clicks_on_one_object_keep_one_opinion(model):
    points = torch.tensor([[[[30.0, 20.0], [34.0, 22.0]]]])
    labels = torch.ones(1, 1, 2, dtype=torch.int64)
    with torch.no_grad():
        output = model(pictures(1), class_embeds=class_embeds(model), input_points=points, input_labels=labels)
    assert output.class_logits.shape == (1, 1, 6)


def test_without_names_nothing_is_said(model):
    with torch.no_grad():
        assert model(pictures(), output_auxiliary=True).backbone_class_logits is None


def test_it_is_saved_with_the_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = OMGSegModel.from_pretrained(tmp_path).eval()
    embeds = class_embeds(model)
    with torch.no_grad():
        expected = model(pictures(), class_embeds=embeds).class_logits
        assert torch.equal(loaded(pictures(), class_embeds=embeds).class_logits, expected)


class TestLoss:
    def with_opinion(self, logits):
        predictions = make_predictions(layers=1)
        return [replace(predictions[0], backbone_class_logits=logits)]

    def test_it_is_the_entropy_of_the_matched_names(self):
        targets = make_targets()
        losses = run(LossSettings(mask_loss="maps"), self.with_opinion(torch.zeros(2, 6, 3)), targets)
        pairs, unmatched = 5, 12 - 5
        expected = 2.0 * pairs * torch.tensor(3.0).log() / (pairs + 0.1 * unmatched)
        assert losses["loss_backbone_class"].item() == pytest.approx(expected.item(), rel=1e-5)

    def test_a_segment_without_a_class_teaches_no_name(self):
        logits = torch.randn(2, 6, 3, requires_grad=True)
        losses = run(LossSettings(mask_loss="maps"), self.with_opinion(logits), make_targets(labels=[-1, -1, -1]))
        assert losses["loss_backbone_class"] == 0

    def test_it_counts_in_the_total(self):
        generator = torch.Generator().manual_seed(1)
        predictions, targets = make_predictions(layers=1), make_targets()
        plain = SegmentationLoss(LossSettings(mask_loss="maps"))(predictions, targets, generator=generator)
        both = run(LossSettings(mask_loss="maps"), self.with_opinion(torch.zeros(2, 6, 3)), targets)
        difference = both["total"] - plain["total"]
        assert difference.item() == pytest.approx(both["loss_backbone_class"].item(), rel=1e-4)
