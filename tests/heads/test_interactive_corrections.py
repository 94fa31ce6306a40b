"""What the interactive head says in training once it sees a first answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_head_interactive import InteractiveHead
from omg_head_interactive.corrections import clicks_into_errors, correct, damaged
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.plugins.contract import CorrectsAnswers
from omg_transformers.training.loss import SegmentationLoss
from omg_transformers.training.questions import Answers, make_question

HEAD = InteractiveHead()
SIZE = (16, 24)


def block(rows, columns):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_clicks_go_into_the_middle_of_the_largest_errors():
    truth = (block((0, 9), (0, 9)) | block((12, 15), (12, 15))).numpy()
    mask = block((2, 7), (15, 20)).numpy()
    clicks = clicks_into_errors(mask, truth, 3)
    assert clicks == [(4, 4, True), (17, 4, False), (13, 13, True)]
    assert clicks_into_errors(mask, truth, 1) == clicks[:1]


def test_a_right_answer_needs_no_click():
    truth = block((2, 7), (2, 7)).numpy()
    assert clicks_into_errors(truth, truth, 3) == []
    assert clicks_into_errors(np.zeros_like(truth), truth, 0) == []


def test_every_click_says_the_truth_about_its_place():
    truths = torch.stack([block((2, 12), (3, 9)), block((0, 16), (10, 24))])[None].repeat(3, 10, 1, 1)
    logits = torch.randn(truths.shape, generator=generator()) * 2
    points = torch.full((3, 20, 1, 2), 30.0)
    asked = correct({"input_points": points}, truths, logits, generator=generator())
    is_click = asked["input_labels"] != -10
    is_click[:, :, 0] = False
    assert is_click.any()
    columns, rows = (asked["input_points"] // 4).long().clamp(min=0).unbind(-1)
    samples, objects = torch.meshgrid(torch.arange(3), torch.arange(20), indexing="ij")
    found = truths[samples[..., None], objects[..., None], rows, columns]
    assert torch.equal(found[is_click], asked["input_labels"][is_click] == 1)


@pytest.mark.parametrize("name", ["input_points", "input_boxes"])
def test_every_object_keeps_its_prompt_or_gives_a_mask(name):
    truths = block((2, 12), (3, 9)).expand(4, 20, -1, -1)
    given = {"input_points": torch.full((4, 20, 1, 2), 20.0), "input_boxes": torch.full((4, 20, 4), 20.0)}[name]
    asked = correct({name: given}, truths, torch.ones(truths.shape), generator=generator())
    has_mask = asked["input_masks"].flatten(2).any(-1)
    first = asked["input_labels"][:, :, 0] == 1 if name == "input_points" else (asked["input_boxes"] != -10).all(-1)
    assert (first | has_mask).all()
    assert 0 < (~first).sum() < 30
    assert 20 < has_mask.sum() < 70


def test_the_same_generator_gives_the_same_corrections():
    truths = block((2, 12), (3, 9)).expand(2, 20, -1, -1)
    given = {"input_boxes": torch.full((2, 20, 4), 20.0)}
    first, again = (correct(given, truths, torch.ones(truths.shape), generator=generator(3)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_damaged_masks_are_poor_but_about_the_object():
    truths = block((3, 13), (4, 20)).expand(1, 50, -1, -1)
    poor = damaged(truths, generator=generator())
    ious = (poor & truths).sum((2, 3)) / (poor | truths).sum((2, 3))
    assert 0.4 < ious.mean() < 0.95
    assert ious.min() < 0.7


def test_training_asks_again_in_the_share_that_is_set():
    assert isinstance(HEAD, CorrectsAnswers)
    annotations = [HEAD.example_annotation(seed=0, size=(64, 96), num_classes=3)]

    def asks(share, seed):
        question = make_question(
            HEAD, annotations, class_embeds=None, size=(64, 96), generator=generator(seed), correction_share=share
        )
        return "follow_up" in question.inputs

    assert not any(asks(0.0, seed) for seed in range(5))
    assert all(asks(1.0, seed) for seed in range(5))
    assert {asks(0.5, seed) for seed in range(10)} == {True, False}


def test_without_corrections_training_asks_as_before():
    annotations = [HEAD.example_annotation(seed=0, size=(64, 96), num_classes=3)]
    question = make_question(HEAD, annotations, class_embeds=None, size=(64, 96), generator=generator(1))
    inputs, _ = HEAD.query_inputs([HEAD.targets(annotations[0])], size=(64, 96), generator=generator(1))
    assert question.inputs["query_inputs"].keys() == inputs.keys()
    assert all(torch.equal(value, question.inputs["query_inputs"][name]) for name, value in inputs.items())


def test_the_second_answer_is_the_one_that_is_trained():
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(mask_refinement=True, prompt_correction=True))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".correction." in name)
    optimizer = torch.optim.Adam([part for part in model.parameters() if part.requires_grad], lr=0.01)
    annotations = [HEAD.example_annotation(seed=0, size=(64, 96), num_classes=3)]
    pixels, losses = torch.randn(1, 3, 64, 96, generator=generator()), []
    for _ in range(12):
        question = make_question(
            HEAD, annotations, class_embeds=None, size=(64, 96), generator=generator(), correction_share=1.0
        )
        ((*_, last),) = Answers(model)(pixels, None, [question.inputs])
        loss = SegmentationLoss()([last], question.targets, is_matched=False, generator=generator())["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.95 * losses[0]
