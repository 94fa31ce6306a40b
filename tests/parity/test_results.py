"""The original's final results, from its own predicted logits: through crop, resizing and post-processing.

Its masks are taken at the padded input's size, where the original crops them; there no grid place sees both picture
and padding, and results are equal to the pixel.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from omg_head_instance import InstanceHead
from omg_head_interactive import InteractiveHead
from omg_head_panoptic import PanopticHead
from omg_transformers.structures import QueryOutput


class Golden:
    """One reference file with its settings."""

    def __init__(self, folder, name):
        self.tensors = load_file(folder / f"{name}.safetensors")
        meta = json.loads((folder / f"{name}.json").read_text())["meta"]
        config = meta["config"]
        self.is_thing = (True,) * config["things"] + (False,) * config["stuff"]
        self.input_size, self.content, self.size = (tuple(config[key]) for key in ("size", "img", "ori"))
        self.final = str(meta.get("final", ""))

    def __getitem__(self, key):
        return self.tensors[key]

    def output(self, class_logits, mask_logits, iou_logits):
        return QueryOutput(
            class_logits,
            mask_logits,
            iou_logits[..., 0],
            input_size=self.input_size,
            content_sizes=(self.content,) * len(mask_logits),
        )

    def keys(self, pattern):
        return sorted(key for key in self.tensors if re.fullmatch(pattern, key))


def official_ids(result, is_thing, frame=0):
    """The result as the original codes it: class + 1000 * number of the thing, stuff its class, void = K."""
    table = torch.full((len(result) + 1,), len(is_thing), dtype=torch.int32)
    things = 0
    for number, label in zip(result.ids.tolist(), result.labels.tolist(), strict=True):
        things += is_thing[label]
        table[number] = label + 1000 * things * is_thing[label]
    return table[result.id_map[frame].long()]


@pytest.fixture(scope="module")
def picture(golden_model):
    return Golden(golden_model, "image_forward")


@pytest.fixture(scope="module")
def picture_output(picture):
    return picture.output(picture["predict.cls"], picture["predict.mask"][:, :, None], picture["predict.iou"])


def test_panoptic_maps_of_pictures_equal_the_original(picture, picture_output):
    keys = picture.keys(r"final\.iou_thr.*\.panoptic\.\d+")
    assert len(keys) == 6
    for key in keys:
        results = PanopticHead().postprocess(
            picture_output,
            sizes=[picture.size] * len(picture_output),
            is_thing=picture.is_thing,
            overlap_threshold=float(re.search(r"iou_thr([\d.]+\d|\d)", key)[1]),
        )
        result = results[int(key.rpartition(".")[2])]
        assert torch.equal(official_ids(result, picture.is_thing)[None], picture[key]), key


def test_instances_of_pictures_equal_the_original(picture, picture_output):
    results = InstanceHead().postprocess(
        picture_output, sizes=[picture.size] * len(picture_output), is_thing=picture.is_thing
    )
    assert len(results) == len(picture.keys(r"final\.instances\.\d+\.scores")) == 2
    for index, result in enumerate(results):
        scores, labels, masks = (picture[f"final.instances.{index}.{name}"] for name in ("scores", "labels", "masks"))
        torch.testing.assert_close(result.scores, scores, atol=1e-4, rtol=0)
        ours = sorted((int(label), result.mask(i)[0].numpy().tobytes()) for i, label in enumerate(result.labels))
        assert ours == sorted((int(label), mask.numpy().tobytes()) for label, mask in zip(labels, masks, strict=True))


def test_masks_of_prompts_equal_the_original(golden_model):
    golden = Golden(golden_model, "prompt_forward")
    output = golden.output(None, golden["predict.mask"][:, :, None], golden["predict.iou"])
    results = InteractiveHead().postprocess(output, sizes=[golden.size] * len(output), is_thing=())
    assert len(results) == len(golden.keys(r"final\.masks\.\d+")) == 2
    for index, result in enumerate(results):
        masks = torch.stack([result.mask(row)[0] for row in range(len(result))])
        assert torch.equal(masks, golden[f"final.masks.{index}"])


def test_panoptic_maps_of_single_frames_equal_the_original(golden_model):
    # The original judges each frame by itself (its ids change from frame to frame); the head, given one frame, agrees.
    golden = Golden(golden_model, "video_forward")
    last = golden.keys(r"layer\.\d+\.mask")[-1]
    masks = golden[last]
    clips, queries, frames = masks.shape[:3]
    masks = functional.interpolate(masks.flatten(1, 2), size=golden.input_size, mode="bilinear")
    masks = masks.unflatten(1, (queries, frames))
    overlap = float(re.search(r"iou_thr ([\d.]+\d)", golden.final)[1])
    assert len(golden.keys(r"final\.panoptic\.\d+\.\d+")) == clips * frames
    for frame in range(frames):
        results = PanopticHead().postprocess(
            golden.output(golden["predict.cls"], masks[:, :, frame : frame + 1], golden["predict.iou"]),
            sizes=[golden.size] * clips,
            is_thing=golden.is_thing,
            overlap_threshold=overlap,
        )
        for clip, result in enumerate(results):
            assert torch.equal(official_ids(result, golden.is_thing)[None], golden[f"final.panoptic.{clip}.{frame}"]), (
                clip,
                frame,
            )
