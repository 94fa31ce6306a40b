"""Several clicks, boxes with clicks, and masks: by trained weights, or by a rule where there are none."""

from __future__ import annotations

import pytest
import torch

from omg_transformers.model import OMGSegConfig, OMGSegModel

SIZE = (64, 96)
POINTS = torch.tensor([[[20.0, 30.0], [60.0, 40.0]], [[50.0, 10.0], [5.0, 60.0]]])
BOXES = torch.tensor([[4.0, 4.0, 40.0, 50.0], [30.0, 2.0, 90.0, 30.0]])


def build(**settings):
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(**settings)).eval()
    if model.query_decoder.correction is not None:  # as after training
        with torch.no_grad():
            for parameter in model.query_decoder.correction.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


KINDS = {"trained": {"mask_refinement": True, "prompt_correction": True}, "by rule": {}}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request):
    return build(**KINDS[request.param])


@pytest.fixture(scope="module")
def features(model):
    return model.get_image_features(torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)))


def ask(model, features, **prompts):
    with torch.inference_mode():
        return model(image_features=features, **{name: value[None] for name, value in prompts.items()})


def mask_of_first():
    masks = torch.zeros(2, SIZE[0] // 4, SIZE[1] // 4)
    masks[0, 2:8, 3:12] = 1
    return masks


def test_a_single_prompt_beside_others_gets_its_own_answer(model, features):
    labels = torch.tensor([[1, 0], [1, -10]])
    together = ask(model, features, input_points=POINTS, input_labels=labels)
    alone = ask(model, features, input_points=POINTS[:, :1])
    torch.testing.assert_close(together.mask_logits[:, 1], alone.mask_logits[:, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.iou_logits[:, 1], alone.iou_logits[:, 1], atol=1e-5, rtol=1e-5)
    assert (together.mask_logits[:, 0] - alone.mask_logits[:, 0]).abs().max() > 0.01


def test_places_without_prompts_change_nothing_at_all(model, features):
    none = torch.full((2, 4), -10.0)
    padded = ask(
        model,
        features,
        input_points=torch.cat([POINTS[:, :1], torch.full((2, 3, 2), -10.0)], dim=1),
        input_labels=torch.tensor([[1, -10, -10, -10]] * 2),
        input_boxes=none,
    )
    alone = ask(model, features, input_points=POINTS[:, :1])
    assert torch.equal(padded.mask_logits, alone.mask_logits)


@pytest.mark.parametrize(
    "prompts",
    [
        {"input_points": POINTS, "input_labels": torch.tensor([[1, 1], [1, 0]])},
        {"input_boxes": BOXES, "input_points": POINTS[:, :1], "input_labels": torch.tensor([[0], [1]])},
        {"input_boxes": BOXES, "input_masks": mask_of_first()},
        {"input_points": POINTS[:, :1], "input_masks": mask_of_first()},
    ],
)
def test_every_further_prompt_changes_the_answer(model, features, prompts):
    first = "input_boxes" if "input_boxes" in prompts else "input_points"
    single = {first: prompts[first][:, :1] if first == "input_points" else prompts[first]}
    more, less = ask(model, features, **prompts), ask(model, features, **single)
    assert more.mask_logits.shape == less.mask_logits.shape == (1, 2, 1, 16, 24)
    assert more.query_states.shape[:2] == more.iou_logits.shape == (1, 2)
    assert (more.mask_logits[:, 0] - less.mask_logits[:, 0]).abs().max() > 0.01


def test_a_mask_alone_is_a_prompt(model, features):
    masks = mask_of_first()
    assert ask(model, features, input_masks=masks[:1]).mask_logits.shape == (1, 1, 1, 16, 24)
    with pytest.raises(ValueError, match="object 1 of picture 0 has no prompt at all"):
        ask(model, features, input_masks=masks)


def test_padding_does_not_change_answers_to_several_prompts():
    for settings in KINDS.values():
        model = build(**settings).double()
        picture = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)).double()
        prompts = {"input_points": POINTS[None], "input_labels": torch.tensor([[[1, 0], [1, 1]]])}
        mask = mask_of_first()[None]
        with torch.inference_mode():
            small = model(picture, input_masks=mask, **prompts)
            pixel_mask = torch.zeros(1, 96, 128)
            pixel_mask[:, : SIZE[0], : SIZE[1]] = 1
            large = model(
                torch.nn.functional.pad(picture, (0, 32, 0, 32)),
                pixel_mask,
                input_masks=torch.nn.functional.pad(mask, (0, 8, 0, 8)),
                **prompts,
            )
        torch.testing.assert_close(large.mask_logits[..., :16, :24], small.mask_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(large.iou_logits, small.iou_logits, atol=1e-4, rtol=1e-4)


def test_clips_are_asked_in_their_first_frame(model):
    clip = torch.randn(1, 3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    prompts = {"input_points": POINTS[None], "input_labels": torch.tensor([[[1, 0], [1, 1]]])}
    with torch.inference_mode():
        output = model(clip, input_masks=mask_of_first()[None], **prompts)
    assert output.mask_logits.shape == (1, 2, 3, 16, 24)


def test_queries_in_parts_answer_like_all_at_once(monkeypatch):
    model = build(**KINDS["trained"])
    features = model.get_image_features(torch.randn(1, 3, *SIZE))
    prompts = {"input_points": POINTS.repeat(3, 1, 1), "input_labels": torch.tensor([[1, 0]] * 6)}
    whole = ask(model, features, **prompts)
    monkeypatch.setattr("omg_transformers.model.correction.QUERIES_AT_ONCE", 4)
    torch.testing.assert_close(ask(model, features, **prompts).mask_logits, whole.mask_logits)


def test_candidates_come_in_a_row_with_the_one_asked_for_first(model, features):
    single = ask(model, features, input_points=POINTS[:, :1])
    several = model(image_features=features, input_points=POINTS[None, :, :1], multimask_output=True)
    assert several.mask_logits.shape[1] == 6
    torch.testing.assert_close(several.mask_logits[:, ::3], single.mask_logits, atol=1e-4, rtol=1e-4)
    assert (several.mask_logits[:, 1] - several.mask_logits[:, 0]).abs().max() > 0.01


def test_new_weights_begin_as_the_identity():
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(mask_refinement=True, prompt_correction=True)).eval()
    features = model.get_image_features(torch.randn(1, 3, *SIZE))
    several = ask(model, features, input_points=POINTS)
    single = ask(model, features, input_points=POINTS[:, :1])
    assert torch.equal(several.mask_logits, single.mask_logits)
    assert torch.equal(several.iou_logits, single.iou_logits)


def test_training_several_prompts_reaches_the_new_weights():
    model = build(**KINDS["trained"])
    output = model(torch.randn(1, 3, *SIZE), input_points=POINTS[None], input_masks=mask_of_first()[None])
    (output.mask_logits.sum() + output.iou_logits.sum()).backward()
    missing = [name for name, part in model.query_decoder.correction.named_parameters() if part.grad is None]
    assert not missing


class TestRule:
    """Masks of single prompts, combined."""

    def combine(self, masks, labels, points, *, box=None, given=None):
        from omg_transformers.model.click_rule import apply_clicks
        from omg_transformers.model.padding import Content
        from omg_transformers.model.query_decoder import Prediction
        from omg_transformers.structures import PromptHints, Queries

        logits = torch.stack([torch.as_tensor(mask, dtype=torch.float32) for mask in masks])[None, :, None] * 6 - 3
        hints = PromptHints(
            torch.tensor([[True]]),
            torch.tensor(points)[None, None] / 8,
            torch.tensor(labels)[None, None],
            torch.full((1, 1, 4), torch.nan) if box is None else torch.tensor(box)[None, None] / 8,
            None if given is None else given[None, None].float(),
            torch.tensor([[given is not None]]),
        )
        anchor = torch.tensor(points[0] if box is None else [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        queries = Queries(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), True, anchor[None, None] / 8, hints)
        prediction = Prediction(None, logits, torch.zeros(1, len(masks)))
        return apply_clicks(prediction, queries, Content(None, (32, 32))).mask_logits[0, 0, 0] > 0

    @staticmethod
    def block(rows, columns):
        mask = torch.zeros(8, 8, dtype=torch.bool)
        mask[slice(*rows), slice(*columns)] = True
        return mask

    def test_points_inside_are_united(self):
        left, right = self.block((0, 8), (0, 3)), self.block((0, 8), (5, 8))
        found = self.combine([left, left, right], [1, 1], [[1.5, 4.5], [6.5, 4.5]])
        assert torch.equal(found, left | right)

    def test_a_point_outside_takes_its_mask_away(self):
        all_of_it, right = self.block((0, 8), (0, 8)), self.block((0, 8), (5, 8))
        found = self.combine([all_of_it, all_of_it, right], [1, 0], [[1.5, 4.5], [6.5, 4.5]])
        assert torch.equal(found, all_of_it & ~right)

    def test_a_point_outside_whose_mask_holds_the_object_takes_only_what_is_nearer(self):
        all_of_it = self.block((0, 8), (0, 8))
        found = self.combine([all_of_it] * 3, [1, 0], [[1.5, 4.5], [6.5, 4.5]])
        assert torch.equal(found, self.block((0, 8), (0, 4)))

    def test_a_box_alone_has_its_middle_inside(self):
        all_of_it = self.block((0, 8), (0, 8))
        found = self.combine([all_of_it] * 2, [0], [[7.5, 4.5]], box=[0.0, 0.0, 8.0, 8.0])
        assert found[4, 4]
        assert not found[4, 7]

    def test_points_do_not_lead_out_of_the_box(self):
        left, all_of_it = self.block((0, 8), (0, 3)), self.block((0, 8), (0, 8))
        found = self.combine([left, all_of_it], [1], [[1.5, 4.5]], box=[0.0, 0.0, 4.0, 8.0])
        assert torch.equal(found, self.block((0, 8), (0, 4)))

    def test_a_given_mask_holds_unless_the_model_is_sure_of_the_contrary(self):
        given, unsure = self.block((2, 6), (2, 6)), self.block((0, 8), (0, 8))
        found = self.combine([unsure, unsure], [-10], [[4.5, 4.5]], given=given)
        assert torch.equal(found, given)
