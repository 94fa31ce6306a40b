"""Open-vocabulary fusion of pictures equals the original's through what a user holds: from pixels to segments."""

from __future__ import annotations

import pytest
import torch

from omg_head_instance import InstanceHead
from omg_transformers import OMGSegPipeline
from omg_transformers.structures import QueryOutput

from .reference_processor import reference_processor

ATOL = 2e-3
OPTIONS = {"max_per_image": 200}


@pytest.fixture(scope="module")
def is_thing(golden):
    config = golden("image_forward").meta["config"]
    return (True,) * config["things"] + (False,) * config["stuff"]


def answers_of_the_pipeline(golden, model, class_embeds, is_thing, seen_classes):
    pipe = OMGSegPipeline(model=model, processor=reference_processor(class_embeds, is_thing), device="cpu")
    pictures = [picture.permute(1, 2, 0).numpy() for picture in golden("image_forward")["image_u8"]]
    return pipe.segment(pictures, task="instance", seen_classes=seen_classes, **OPTIONS)


def answers_of_the_original(golden, is_thing, class_logits):
    """What the head makes of the original's fused classes and its masks."""
    reference = golden("image_forward")
    last = reference.indices(r"layer\.(\d+)\.cls")[-1]
    size, input_size = (tuple(reference[name].shape[-2:]) for name in ("image_u8", "pixel_values"))
    output = QueryOutput(
        class_logits,
        reference[f"layer.{last}.mask"][:, :, None],
        reference[f"layer.{last}.iou"][..., 0],
        input_size=input_size,
        content_sizes=(input_size,) * len(class_logits),
    )
    return InstanceHead().postprocess(output, sizes=[size] * len(class_logits), is_thing=is_thing, **OPTIONS)


def scores_by_pair(segments, left_out=()):
    """Scores by (query, label), without those of some queries."""
    queries, labels = segments.info["queries"].tolist(), segments.labels.tolist()
    pairs = zip(queries, labels, strict=True)
    found = dict(zip(pairs, segments.scores.tolist(), strict=True))
    assert len(found) == len(segments)
    return {pair: score for pair, score in found.items() if pair[0] not in left_out}


def planted_queries(golden):
    """Per picture the queries to which the reference gave other masks than the model's: nowhere or everywhere."""
    spread = golden("open_voc")["in.mask"].flatten(2).std(-1)
    return [set((row == 0).nonzero()[:, 0].tolist()) for row in spread]


@pytest.mark.parametrize("case", ["some_seen", "all_seen", "all_unseen"])
def test_fused_scores_of_the_pipeline_are_the_originals(golden, model, class_embeds, is_thing, case):
    reference = golden("open_voc")
    if case == "some_seen":
        seen, fused = reference["overlapping"].tolist(), reference["out.cls"]
    else:
        seen, fused = [case == "all_seen"] * len(is_thing), reference[f"out.cls.{case}"]
    ours = answers_of_the_pipeline(golden, model, class_embeds, is_thing, seen)
    theirs = answers_of_the_original(golden, is_thing, fused)
    assert len(ours) == len(theirs) == 2
    for one, other, planted in zip(ours, theirs, planted_queries(golden), strict=True):
        assert len(planted) <= 2
        found, expected = scores_by_pair(one, planted), scores_by_pair(other, planted)
        assert len(found.keys() & expected.keys()) > 60
        # Only pairs that score next to nothing may be in one of them and not in the other.
        assert {
            pair: (found.get(pair, 0.0), expected.get(pair, 0.0))
            for pair in found.keys() | expected.keys()
            if abs(found.get(pair, 0.0) - expected.get(pair, 0.0)) > ATOL
        } == {}


def test_without_seen_classes_nothing_is_fused(golden, model, class_embeds, is_thing):
    reference = golden("open_voc")
    ours = answers_of_the_pipeline(golden, model, class_embeds, is_thing, None)
    plain, fused = (answers_of_the_original(golden, is_thing, reference[name]) for name in ("in.cls", "out.cls"))
    for one, same, other in zip(ours, plain, fused, strict=True):
        torch.testing.assert_close(one.scores, same.scores, atol=ATOL, rtol=0)
        assert (one.scores[0] - other.scores[0]).abs() > 2 * ATOL
