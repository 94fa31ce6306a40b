"""Post-processing equals the original's, on its own logits: ids, labels and masks exactly, scores within 1e-4.

Kept: the rules and their order. Mended: `max_per_image` and `num_proposals` beyond what exists are clamped (the
original fails), and proposals come best first (the original's come best last).
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from omg_head_instance import InstanceHead
from omg_head_interactive import InteractiveHead
from omg_head_panoptic import PanopticHead
from omg_transformers.ops.masks import rle_box
from omg_transformers.structures import QueryOutput

PANOPTIC_KEY = re.compile(r"panoptic\.thr(?P<threshold>[\d.]+)\.iou(?P<overlap>[\d.]+)\.filter(?P<filter>[01])")
NUM_PANOPTIC = 8
NUM_INSTANCES = 2
NUM_PROPOSALS = 2


class Golden:
    """The reference file, with the numbers of its settings."""

    def __init__(self, folder):
        self.tensors = load_file(folder / "postprocess.safetensors")
        notes = json.loads((folder / "postprocess.json").read_text())
        meta = notes["meta"]
        self.descriptions = {name: entry["desc"] for name, entry in notes["tensors"].items()}
        self.is_thing = (True,) * meta["things"] + (False,) * meta["stuff"]

    def __getitem__(self, key):
        return self.tensors[key]

    def output(self, **changes):
        tensors = {"class_logits": self["cls"][None], "mask_logits": self["mask"][None, :, None]}
        return QueryOutput(**{**tensors, "iou_logits": self["proposal.iou"][None, :, 0], **changes})

    @property
    def size(self):
        return tuple(self["mask"].shape[-2:])


@pytest.fixture(scope="module")
def golden(golden_model):
    return Golden(golden_model)


def official_ids(result, is_thing):
    """The result as the original codes it: class + 1000 * number of the thing, stuff its class, void = K."""
    table = torch.full((len(result) + 1,), len(is_thing), dtype=torch.int32)
    things = 0
    for number, label in zip(result.ids.tolist(), result.labels.tolist(), strict=True):
        things += is_thing[label]
        table[number] = label + 1000 * things * is_thing[label]
    return table[result.id_map.long()]


def require_instances(result, golden, prefix):
    scores, labels, masks = (golden[f"{prefix}.{name}"] for name in ("scores", "labels", "masks"))
    assert len(result) == len(scores)
    torch.testing.assert_close(result.scores, scores, atol=1e-4, rtol=0)
    # Nearly equal scores may come in another order, so each of theirs is looked for among ours.
    by_content = {(int(label), result.mask(i)[0].numpy().tobytes()): i for i, label in enumerate(result.labels)}
    for label, mask, score in zip(labels, masks, scores, strict=True):
        assert (int(label), mask.numpy().tobytes()) in by_content, f"no result of class {int(label)} has this mask"
        index = by_content[int(label), mask.numpy().tobytes()]
        assert abs(float(result.scores[index]) - float(score)) < 1e-4


def test_panoptic_ids_equal_the_original(golden):
    cases = {key: match for key in golden.tensors if (match := PANOPTIC_KEY.fullmatch(key))}
    assert len(cases) == NUM_PANOPTIC
    for key, match in cases.items():
        (result,) = PanopticHead().postprocess(
            golden.output(),
            sizes=[golden.size],
            is_thing=golden.is_thing,
            threshold=float(match["threshold"]),
            overlap_threshold=float(match["overlap"]),
            filter_low_score=match["filter"] == "1",
        )
        assert torch.equal(official_ids(result, golden.is_thing), golden[key]), key


def test_no_kept_query_gives_an_empty_panoptic_map(golden):
    output = golden.output(class_logits=golden["empty.cls"][None])
    (result,) = PanopticHead().postprocess(output, sizes=[golden.size], is_thing=golden.is_thing)
    assert len(result) == 0
    assert torch.equal(official_ids(result, golden.is_thing), golden["empty.panoptic"])


def test_instances_equal_the_original(golden):
    cases = sorted({key.split(".")[1] for key in golden.tensors if key.startswith("instances.")})
    assert len(cases) == NUM_INSTANCES
    for case in cases:
        (result,) = InstanceHead().postprocess(
            golden.output(),
            sizes=[golden.size],
            is_thing=golden.is_thing,
            max_per_image=int(case.removeprefix("max")),
        )
        require_instances(result, golden, f"instances.{case}")


def test_boxes_of_instances_equal_the_original(golden):
    (result,) = InstanceHead().postprocess(golden.output(), sizes=[golden.size], is_thing=golden.is_thing)
    boxes = {rle_box(rles[0]) for rles in result.rles}
    assert boxes == {tuple(box) for box in golden["instances.max100.bboxes"].tolist()}


def test_more_results_than_pairs_are_clamped(golden):
    (result,) = InstanceHead().postprocess(
        golden.output(), sizes=[golden.size], is_thing=golden.is_thing, max_per_image=10**6
    )
    assert len(result) <= golden["cls"].shape[0] * sum(golden.is_thing)


def test_proposals_equal_the_original_best_first(golden):
    cases = {key: int(key.rpartition("num")[2]) for key in golden.tensors if key.startswith("proposal.masks")}
    assert len(cases) == NUM_PROPOSALS
    for key, count in cases.items():
        (result,) = InteractiveHead().postprocess(
            golden.output(class_logits=None), sizes=[golden.size], is_thing=(), num_proposals=count
        )
        masks = torch.stack([result.mask(index)[0] for index in range(len(result))])
        assert torch.equal(masks.flip(0), golden[key]), key


def rescaled_case(golden):
    """Settings that the file gives in words: the picture's size inside the padded input, and two options."""
    text = golden.descriptions["rescaled.panoptic"]
    content = tuple(map(int, re.search(r"img_shape \((\d+), ?(\d+)\)", text).groups()))
    overlap = float(re.search(r"iou_thr ([\d.]+\d)", text)[1])
    proposals = int(re.search(r"num_proposals (\d+)", text)[1])
    # The logits lie on the padded input itself.
    output = golden.output(input_size=golden.size, content_sizes=(content,))
    return output, tuple(golden["rescaled.panoptic"].shape[-2:]), overlap, proposals


def test_rescaled_panoptic_ids_equal_the_original(golden):
    output, size, overlap, _ = rescaled_case(golden)
    (result,) = PanopticHead().postprocess(output, sizes=[size], is_thing=golden.is_thing, overlap_threshold=overlap)
    assert torch.equal(official_ids(result, golden.is_thing), golden["rescaled.panoptic"])


def test_rescaled_instances_equal_the_original(golden):
    output, size, _, _ = rescaled_case(golden)
    (result,) = InstanceHead().postprocess(output, sizes=[size], is_thing=golden.is_thing)
    require_instances(result, golden, "rescaled.instances")


def test_rescaled_proposals_equal_the_original_best_first(golden):
    output, size, _, proposals = rescaled_case(golden)
    (result,) = InteractiveHead().postprocess(output, sizes=[size], is_thing=(), num_proposals=proposals)
    masks = torch.stack([result.mask(index)[0] for index in range(len(result))])
    assert torch.equal(masks.flip(0), golden["rescaled.proposals"])
