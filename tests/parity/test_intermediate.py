"""What lies between the layers: prompt encodings, CLIP's pooled features, boxes of instances, the classifier's scale.

Left out on purpose: the original moves prompt boxes at random inside its training forward pass; ours asks the same
question in training and in evaluation, and the interactive head chooses noisy boxes where it makes training prompts.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch.nn import functional

from omg_head_instance import InstanceHead
from omg_transformers.model.classifier import class_logits, pool_clip_features
from omg_transformers.model.padding import Content
from omg_transformers.model.positions import box_positions
from omg_transformers.ops.masks import rle_box
from omg_transformers.structures import QueryOutput

from .conftest import assert_close
from .test_forward import boxes_on_padded_grid

CLASS, OTHER = 2e-3, 1e-4


def encode_prompts(reference, model):
    """Our queries for the reference's prompts, and the encoding that went into their position."""
    input_size = tuple(reference["pixel_values"].shape[-2:])
    boxes = boxes_on_padded_grid(reference["boxes_xyxy"], reference.meta["img_shape"], input_size)
    encoder, seen = model.query_encoders["prompt"], []
    handle = encoder.position_projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        queries = encoder(
            batch_size=len(boxes),
            content_sizes=Content(None, input_size).as_float(len(boxes), boxes.device),
            inputs={"input_boxes": boxes, "box_types": reference["bp"]},
        )
    handle.remove()
    (encoding,) = seen
    return queries, encoding


class TestPrompts:
    def test_features(self, golden, model):
        reference = golden("prompt_forward")
        content = Content(None, tuple(reference["pixel_values"].shape[-2:]))
        with torch.no_grad():
            maps = model.backbone(reference["pixel_values"], content)
            mask_features, memories = model.pixel_decoder(maps, content)
        assert len(maps) == reference.count(r"backbone\.\d+") == 4
        assert len(memories) == reference.count(r"pixel_decoder\.memory\.\d+") == 3
        for index, features in enumerate(maps):
            assert_close(features, reference[f"backbone.{index}"], OTHER)
        for index, memory in enumerate(memories):
            assert_close(memory, reference[f"pixel_decoder.memory.{index}"], OTHER)
        assert_close(mask_features, reference["pixel_decoder.mask_features"], OTHER)

    def test_encoding_of_boxes(self, golden, model):
        reference = golden("prompt_forward")
        _, encoding = encode_prompts(reference, model)
        assert_close(encoding, reference["prompt.box_encoding"], OTHER)
        boxes = reference["prompt.boxes_inverse_sigmoid"].sigmoid()
        assert_close(box_positions(boxes, encoding.shape[-1] // 4), reference["prompt.box_encoding"], OTHER)

    def test_training_asks_the_same_question(self, golden, model):
        reference = golden("prompt_forward")
        assert not torch.equal(
            reference["train_noise.boxes_inverse_sigmoid"], reference["prompt.boxes_inverse_sigmoid"]
        )
        calm, _ = encode_prompts(reference, model)
        encoder = model.query_encoders["prompt"]
        encoder.train()
        try:
            trained, _ = encode_prompts(reference, model)
        finally:
            encoder.eval()
        assert torch.equal(trained.position, calm.position)

    def test_prompts_do_not_see_each_other(self, golden, model):
        reference = golden("prompt_forward")
        queries, _ = encode_prompts(reference, model)
        assert queries.is_isolated
        for name in ("prompt.self_attn_mask", "single.self_attn_mask"):
            assert torch.equal(reference[name], ~torch.eye(len(reference[name]), dtype=torch.bool))

    def test_states_and_predictions(self, golden, model, class_embeds):
        reference = golden("prompt_forward")
        size = tuple(reference["pixel_values"].shape[-2:])
        boxes = boxes_on_padded_grid(reference["boxes_xyxy"], reference.meta["img_shape"], size)
        with torch.no_grad():
            output = model(
                reference["pixel_values"],
                class_embeds=class_embeds,
                input_boxes=boxes,
                query_inputs={"box_types": reference["bp"]},
            )
        assert_close(output.query_states, reference["query_feat"], OTHER)
        assert_close(output.class_logits, reference["predict.cls"], CLASS)
        assert_close(output.iou_logits[..., None], reference["predict.iou"], OTHER)
        masks = functional.interpolate(output.mask_logits[:, :, 0], size=size, mode="bilinear")
        assert_close(masks, reference["predict.mask"], 1e-3)


class TestClassifier:
    def test_scale_and_void_of_the_classifier(self, golden, model):
        reference = golden("class_embed")
        stored = float(reference["logit_scale"])
        scale = stored if stored > 10 else math.exp(stored)
        assert math.isclose(model.config.logit_scale, scale, rel_tol=1e-5)
        weights = reference["cls_embed_buffer"].permute(1, 2, 0)
        assert torch.equal(weights[:-1], reference["class_embed"])
        features = torch.randn((2, 5, weights.shape[-1]), generator=torch.Generator().manual_seed(0))
        cosines = torch.einsum("bqd,kpd->bqkp", functional.normalize(features, dim=-1), weights).amax(-1)
        ours = class_logits(features, reference["class_embed"], model.config.logit_scale)
        assert_close(ours, model.config.logit_scale * cosines, OTHER)

    def test_clip_features_under_masks(self, golden, model):
        reference = golden("open_voc")
        clip_map, masks = reference["in.feat"][:, None], reference["in.mask"][:, :, None]
        small = functional.interpolate(reference["in.mask"], size=clip_map.shape[-2:], mode="bilinear")
        assert_close(small, reference["mid.mask_small"], OTHER)
        with torch.no_grad():
            pooled, is_pooled = pool_clip_features(clip_map, masks, None)
            embedded = model.backbone.embed_pooled(pooled)
        assert_close(pooled, reference["mid.pooled"], OTHER)
        assert_close(embedded, reference["mid.clip_embed"], OTHER)
        assert torch.equal(is_pooled, (reference["mid.mask_small"] > 0).flatten(2).any(-1))


def require_boxes(result, boxes, labels):
    """Edges right and below are exclusive, as the original's."""
    theirs = sorted((int(label), *box.tolist()) for label, box in zip(labels, boxes, strict=True))
    ours = zip(result.labels.tolist(), result.rles, strict=True)
    assert sorted((label, *rle_box(frames[0])) for label, frames in ours) == theirs


class TestBoxesOfInstances:
    def test_of_pictures(self, golden):
        reference = golden("image_forward")
        settings = reference.meta["config"]
        output = QueryOutput(
            reference["predict.cls"],
            reference["predict.mask"][:, :, None],
            input_size=tuple(settings["size"]),
            content_sizes=(tuple(settings["img"]),) * len(reference["predict.cls"]),
        )
        results = InstanceHead().postprocess(
            output,
            sizes=[tuple(settings["ori"])] * len(output),
            is_thing=(True,) * settings["things"] + (False,) * settings["stuff"],
        )
        assert len(results) == reference.count(r"final\.instances\.\d+\.bboxes") == 2
        for index, result in enumerate(results):
            parts = (reference[f"final.instances.{index}.{part}"] for part in ("bboxes", "labels"))
            require_boxes(result, *parts)

    @pytest.mark.parametrize("prefix", ["instances.max100", "instances.max20", "rescaled.instances"])
    def test_of_recorded_logits(self, golden, golden_model, prefix):
        reference = golden("postprocess")
        meta = reference.meta
        size = tuple(reference["mask"].shape[-2:])
        options, target, content = {}, size, None
        if prefix.startswith("rescaled"):
            text = (golden_model / "postprocess.json").read_text()
            content = (tuple(map(int, re.search(r"img_shape \((\d+), ?(\d+)\)", text).groups())),)
            target = tuple(reference["rescaled.panoptic"].shape[-2:])
        else:
            options["max_per_image"] = int(prefix.partition("max")[2])
        output = QueryOutput(
            reference["cls"][None], reference["mask"][None, :, None], input_size=size, content_sizes=content
        )
        (result,) = InstanceHead().postprocess(
            output, sizes=[target], is_thing=(True,) * meta["things"] + (False,) * meta["stuff"], **options
        )
        require_boxes(result, *(reference[f"{prefix}.{part}"] for part in ("bboxes", "labels")))
