"""Every installed head keeps every promise of the conformance kit."""

import warnings

import pytest
import torch

from omg_transformers.plugins import available_heads, failed_heads, load_head
from omg_transformers.structures import QueryOutput
from omg_transformers.testing import head_checks, parametrize_with_head_checks
from omg_transformers.testing.results import require_same

TWINS = {"instance": "video_instance", "panoptic": "video_panoptic", "semantic": "video_semantic"}
SHIPPED = {"interactive", "video_object", *TWINS, *TWINS.values()}
FOUND = available_heads()


def test_the_heads_we_ship_are_found_and_load():
    assert set(FOUND) >= SHIPPED
    assert failed_heads() == {}


@parametrize_with_head_checks(*FOUND)
def test_conformance(head, check):
    check(head)


def test_conformance_runs_every_check_on_every_head():
    cases = test_conformance.pytestmark[0].args[1]
    assert len(cases) == len(FOUND) * len(head_checks())


def unsure_output():
    """Six random queries, one of which surely wins its pixels."""
    random = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=random) * 4 for shape in ((1, 6, 4), (1, 6, 1, 9, 11), (1, 6))]
    tensors[0][:, 0], tensors[1][:, 0] = torch.tensor([1.0, 2.0, 9.0, 0.0]), 9.0
    return QueryOutput(*tensors)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_outputs_with_gradients_give_the_same_results_in_silence(name):
    head, output = load_head(name), unsure_output()
    tensors = [output.class_logits, output.mask_logits, output.iou_logits]
    question = {"sizes": [(40, 50)], "is_thing": (True, False, True)}
    (expected,) = head.postprocess(QueryOutput(*tensors), **question)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (result,) = head.postprocess(QueryOutput(*(tensor.requires_grad_() for tensor in tensors)), **question)
    assert len(expected) > 0
    assert not result.scores.requires_grad
    torch.testing.assert_close(result.scores, expected.scores, atol=0, rtol=0)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_clip_of_one_frame_gets_the_answer_of_the_picture(name):
    output = unsure_output()
    question = {"sizes": [(40, 50)], "is_thing": (True, False, True)}
    (picture,) = load_head(name).postprocess(output, **question)
    (clip,) = load_head(TWINS[name]).postprocess(output, **question)
    assert len(picture) > 0
    require_same(picture, clip, "the video head was asked", score_tolerance=0.0)


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"semantic", "video_semantic"}))
def test_results_say_which_query_each_segment_comes_from(name):
    head, output = load_head(name), unsure_output()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = QueryOutput(output.class_logits[:, order], output.mask_logits[:, order], output.iou_logits[:, order])
    question = {"sizes": [(40, 50)], "is_thing": (True, False, True)}
    masks = []
    for asked, place in ((output, torch.arange(6)), (shuffled, order)):
        (result,) = head.postprocess(asked, **question)
        queries = result.info["queries"].tolist()
        assert len(queries) == len(result) > 0
        rows = [(int(place[query]), int(label)) for query, label in zip(queries, result.labels, strict=True)]
        masks.append({row: result.mask(index) for index, row in enumerate(rows) if queries[index] >= 0})
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(mask, masks[1][row]) for row, mask in masks[0].items())
