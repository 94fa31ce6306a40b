"""The model equals the original, tensor by tensor: pictures, clips, prompts, open-vocabulary fusion.

Tolerances are those the reference's README suggests from its measured float32 noise.
"""

from __future__ import annotations

import pytest
import torch

from omg_transformers.model.classifier import fuse_open_vocabulary
from omg_transformers.model.padding import Content
from omg_transformers.model.positions import cell_positions, frame_positions

from .conftest import assert_close

CLASS, MASK, OTHER = 2e-3, 1e-3, 1e-4


def as_clip(masks):
    """Reference masks of pictures have no time axis."""
    return masks if masks.dim() == 5 else masks[:, :, None]


def boxes_on_padded_grid(boxes_xyxy, image_size, input_size):
    """The original divides boxes by the picture's size though its features span the padded input (defect 17).

    Ours divides by what the features span; giving it boxes scaled by the ratio of the two repeats the original.
    """
    (height, width), (input_height, input_width) = image_size, input_size
    return boxes_xyxy * torch.tensor([input_width / width, input_height / height] * 2)


@pytest.mark.parametrize("kind", ["image_forward", "video_forward"])
class TestForward:
    def test_backbone(self, golden, model, kind):
        reference = golden(kind)
        pixels = reference["pixel_values"]
        frames = pixels.flatten(0, 1) if pixels.dim() == 5 else pixels
        with torch.no_grad():
            maps = model.backbone(frames, Content(None, tuple(pixels.shape[-2:])))
        assert len(maps) == reference.count(r"backbone\.\d+") == 4
        for index, features in enumerate(maps):
            assert_close(features, reference[f"backbone.{index}"], OTHER)

    def test_pixel_decoder(self, golden, model, kind):
        reference = golden(kind)
        content = Content(None, tuple(reference["pixel_values"].shape[-2:]))
        levels = reference.indices(r"backbone\.(\d+)")
        with torch.no_grad():
            mask_features, memories = model.pixel_decoder([reference[f"backbone.{level}"] for level in levels], content)
        assert_close(mask_features, reference["pixel_decoder.mask_features"], OTHER)
        assert len(memories) == reference.count(r"pixel_decoder\.memory\.\d+") == 3
        for index, memory in enumerate(memories):
            assert_close(memory, reference[f"pixel_decoder.memory.{index}"], OTHER)

    def test_sampling_for_training_equals_sampling_for_inference(self, golden, model, kind):
        reference = golden(kind)
        content = Content(None, tuple(reference["pixel_values"].shape[-2:]))
        maps = [reference[f"backbone.{level}"] for level in reference.indices(r"backbone\.(\d+)")]
        with torch.enable_grad():
            mask_features, _ = model.pixel_decoder(maps, content)
        assert mask_features.requires_grad
        assert_close(mask_features.detach(), reference["pixel_decoder.mask_features"], OTHER)

    def test_positions(self, golden, model, kind):
        reference = golden(kind)
        levels = reference.indices(r"decoder\.pos\.(\d+)")
        assert len(levels) == 3
        for level in levels:
            expected = reference[f"decoder.pos.{level}"]
            _, frames, channels, height, width = expected.shape
            content = Content(None, tuple(reference["pixel_values"].shape[-2:]))
            cells = cell_positions((height, width), channels, content, torch.device("cpu"))
            times = frame_positions(frames, channels, torch.device("cpu"))
            ours = (cells[:, None] + times[None, :, None]).transpose(-1, -2).unflatten(-1, (height, width))
            assert_close(ours.expand_as(expected), expected, OTHER)

    def test_every_layer(self, golden, model, class_embeds, kind):
        reference = golden(kind)
        with torch.no_grad():
            output = model(reference["pixel_values"], class_embeds=class_embeds, output_auxiliary=True)
        predictions = [*output.auxiliary, output.to_query_output()]
        assert len(predictions) == reference.count(r"layer\.\d+\.cls") == model.config.decoder_layers + 1
        for index, prediction in enumerate(predictions):
            assert_close(prediction.class_logits, reference[f"layer.{index}.cls"], CLASS)
            assert_close(prediction.mask_logits, as_clip(reference[f"layer.{index}.mask"]), MASK)
            assert_close(prediction.iou_logits, reference[f"layer.{index}.iou"][..., 0], OTHER)
        assert_close(output.query_states, reference["query_feat"], OTHER)

    def test_last_layer_alone_is_the_same(self, golden, model, class_embeds, kind):
        reference = golden(kind)
        last = reference.indices(r"layer\.(\d+)\.cls")[-1]
        with torch.no_grad():
            output = model(reference["pixel_values"], class_embeds=class_embeds)
        assert output.auxiliary is None
        assert_close(output.class_logits, reference[f"layer.{last}.cls"], CLASS)
        assert_close(output.mask_logits, as_clip(reference[f"layer.{last}.mask"]), MASK)


class TestPrompts:
    def prompted(self, golden, model, class_embeds, count=None, **options):
        reference = golden("prompt_forward")
        boxes = boxes_on_padded_grid(
            reference["boxes_xyxy"], reference.meta["img_shape"], reference["pixel_values"].shape[-2:]
        )
        with torch.no_grad():
            output = model(
                reference["pixel_values"],
                class_embeds=class_embeds,
                input_boxes=boxes[:, :count],
                query_inputs={"box_types": reference["bp"][:, :count]},
                **options,
            )
        return reference, output

    def test_queries(self, golden, model):
        reference = golden("prompt_forward")
        input_size = reference["pixel_values"].shape[-2:]
        boxes = boxes_on_padded_grid(reference["boxes_xyxy"], reference.meta["img_shape"], input_size)
        with torch.no_grad():
            queries = model.query_encoders["prompt"](
                batch_size=len(boxes),
                content_sizes=Content(None, tuple(input_size)).as_float(len(boxes), boxes.device),
                inputs={"input_boxes": boxes, "box_types": reference["bp"]},
            )
        assert queries.is_isolated
        assert_close(queries.content, reference["prompt.query_feat"], OTHER)
        assert_close(queries.position, reference["prompt.query_embed"], OTHER)

    def test_every_layer(self, golden, model, class_embeds):
        reference, output = self.prompted(golden, model, class_embeds, output_auxiliary=True)
        predictions = [*output.auxiliary, output.to_query_output()]
        assert len(predictions) == reference.count(r"layer\.\d+\.cls") == model.config.decoder_layers + 1
        for index, prediction in enumerate(predictions):
            assert_close(prediction.class_logits, reference[f"layer.{index}.cls"], CLASS)
            assert_close(prediction.mask_logits[:, :, 0], reference[f"layer.{index}.mask"], MASK)
            assert_close(prediction.iou_logits, reference[f"layer.{index}.iou"][..., 0], OTHER)

    def test_a_prompt_alone_gets_the_same_answer(self, golden, model, class_embeds):
        reference, output = self.prompted(golden, model, class_embeds, count=reference_count(golden))
        assert_close(output.class_logits, reference["single.cls"], CLASS)
        assert_close(output.mask_logits[:, :, 0], reference["single.mask"], MASK)
        assert_close(output.iou_logits, reference["single.iou"][..., 0], OTHER)

    def test_points_are_small_boxes(self, golden, model, class_embeds):
        """A point is a box of +-3 pixels; converted weights use the embedding row of boxes for it (defect 18)."""
        reference = golden("prompt_forward")
        assert model.config.point_prompt_row == 0
        points = torch.tensor([[[[20.0, 30.0]], [[50.0, 10.0]]]]).expand(len(reference["boxes_xyxy"]), -1, -1, -1)
        boxes = torch.cat([points[:, :, 0] - 3, points[:, :, 0] + 3], dim=-1)
        with torch.no_grad():
            features = model.get_image_features(reference["pixel_values"])
            by_point = model(image_features=features, input_points=points)
            by_box = model(image_features=features, input_boxes=boxes)
        assert torch.equal(by_point.mask_logits, by_box.mask_logits)


def reference_count(golden):
    return golden("prompt_forward")["single.cls"].shape[1]


class TestOpenVocabulary:
    def fuse(self, golden, model, class_embeds, prefix, is_seen, decoder_logits=None):
        reference = golden("open_voc")
        masks = as_clip(reference[f"{prefix}in.mask"])
        clip_map = reference[f"{prefix}in.feat"].unflatten(0, (len(masks), -1))
        input_size = tuple(32 * side for side in clip_map.shape[-2:])
        with torch.no_grad():
            clip_logits, is_pooled = model.clip_class_logits(clip_map, masks, class_embeds, Content(None, input_size))
        fused = fuse_open_vocabulary(
            reference[f"{prefix}in.cls"] if decoder_logits is None else decoder_logits,
            clip_logits,
            is_seen,
            is_pooled,
            seen_exponent=reference.meta["alpha"],
            unseen_exponent=reference.meta["beta"],
        )
        return reference, clip_logits, fused

    @pytest.mark.parametrize("prefix", ["", "video."])
    def test_fusion(self, golden, model, class_embeds, prefix):
        is_seen = golden("open_voc")["overlapping"]
        reference, clip_logits, fused = self.fuse(golden, model, class_embeds, prefix, is_seen)
        assert_close(clip_logits, reference[f"{prefix}mid.clip_logit"], CLASS)
        assert_close(fused, reference[f"{prefix}out.cls"], CLASS)

    @pytest.mark.parametrize(("name", "seen"), [("all_seen", True), ("all_unseen", False)])
    def test_all_seen_or_all_unseen(self, golden, model, class_embeds, name, seen):
        is_seen = torch.full((len(class_embeds),), seen)
        reference, _, fused = self.fuse(golden, model, class_embeds, "", is_seen)
        assert_close(fused, reference[f"out.cls.{name}"], CLASS)

    def test_finite_where_the_original_gives_nan(self, golden, model, class_embeds):
        """Defect 4, mended: a class probability that underflows to 0 made a whole row NaN."""
        reference = golden("open_voc")
        assert reference["edge.nan_mask"].any()
        _, _, fused = self.fuse(golden, model, class_embeds, "", reference["overlapping"], reference["edge.in.cls"])
        assert fused.isfinite().all()

    def test_forward_fuses_when_told_what_was_seen(self, golden, model, class_embeds):
        reference = golden("image_forward")
        is_seen = golden("open_voc")["overlapping"]
        with torch.no_grad():
            features = model.get_image_features(reference["pixel_values"])
            plain = model(image_features=features, class_embeds=class_embeds)
            fused = model(image_features=features, class_embeds=class_embeds, seen_classes=is_seen)
        clip_logits, is_pooled = model.clip_class_logits(
            features.clip_map, plain.mask_logits, class_embeds, features.content
        )
        expected = fuse_open_vocabulary(
            plain.class_logits, clip_logits, is_seen, is_pooled, seen_exponent=0.4, unseen_exponent=0.8
        )
        assert_close(fused.class_logits, expected.detach(), 1e-6)
