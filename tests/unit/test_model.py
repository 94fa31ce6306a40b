"""The model as a transformers model: saving, loading, compiling, training switches, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from omg_transformers import OMGSegConfig, OMGSegModel
from omg_transformers.testing import tiny_model


def class_embeds(model: OMGSegModel, classes: int = 5, synonyms: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return F.normalize(torch.randn(classes, synonyms, model.config.text_dim, generator=generator), dim=-1)


def pictures(batch: int = 2, size: tuple[int, int] = (64, 96), frames: int | None = None) -> torch.Tensor:
    shape = (batch, 3, *size) if frames is None else (batch, frames, 3, *size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> OMGSegModel:
    return tiny_model()


class TestOutput:
    def test_shapes_of_a_picture(self, model):
        output = model(pictures(), class_embeds=class_embeds(model))
        queries = model.config.num_queries
        assert output.class_logits.shape == (2, queries, 6)
        assert output.mask_logits.shape == (2, queries, 1, 16, 24)
        assert output.iou_logits.shape == (2, queries)
        assert output.query_states.shape == (2, queries, model.config.hidden_size)
        assert output.auxiliary is None

    def test_shapes_of_a_clip(self, model):
        output = model(pictures(frames=3), class_embeds=class_embeds(model))
        assert output.mask_logits.shape == (2, model.config.num_queries, 3, 16, 24)

    def test_a_picture_is_a_clip_of_one_frame(self, model):
        as_picture = model(pictures(), class_embeds=class_embeds(model))
        as_clip = model(pictures()[:, None], class_embeds=class_embeds(model))
        assert torch.equal(as_picture.mask_logits, as_clip.mask_logits)
        assert torch.equal(as_picture.class_logits, as_clip.class_logits)

    def test_without_names_there_are_masks_but_no_classes(self, model):
        output = model(pictures())
        assert output.class_logits is None
        assert output.mask_logits is not None

    def test_features_are_reused_for_other_names_and_prompts(self, model):
        with torch.no_grad():
            features = model.get_image_features(pictures())
            direct = model(pictures(), class_embeds=class_embeds(model, 3))
            reused = model(image_features=features, class_embeds=class_embeds(model, 3))
        torch.testing.assert_close(direct.class_logits, reused.class_logits)
        boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0]]]).expand(2, -1, -1)
        assert model(image_features=features, input_boxes=boxes).mask_logits.shape[1] == 1

    def test_prompts_do_not_see_each_other(self, model):
        boxes = torch.tensor([[[4.0, 4.0, 40.0, 50.0], [30.0, 10.0, 90.0, 60.0]]])
        with torch.no_grad():
            features = model.get_image_features(pictures(1))
            both = model(image_features=features, input_boxes=boxes)
            alone = model(image_features=features, input_boxes=boxes[:, 1:])
        torch.testing.assert_close(both.mask_logits[:, 1:], alone.mask_logits, rtol=0, atol=1e-5)

    def test_synonyms_count_once(self, model):
        """A class scores as its best synonym: repeating one changes nothing."""
        embeds = class_embeds(model)
        with torch.no_grad():
            features = model.get_image_features(pictures())
            plain = model(image_features=features, class_embeds=embeds)
            repeated = model(image_features=features, class_embeds=embeds[:, [0, 1, 0]])
        torch.testing.assert_close(plain.class_logits, repeated.class_logits, rtol=0, atol=1e-4)

    def test_refinement_starts_as_identity_and_sharpens_after_the_coarse_mask(self):
        model = tiny_model(mask_refinement=True)
        with torch.no_grad():
            output = model(pictures(), class_embeds=class_embeds(model), output_auxiliary=True)
        assert len(output.auxiliary) == model.config.decoder_layers + 1
        torch.testing.assert_close(output.mask_logits, output.auxiliary[-1].mask_logits)
        torch.nn.init.normal_(model.query_decoder.refinement.output_convolution.weight)
        with torch.no_grad():
            refined = model(pictures(), class_embeds=class_embeds(model)).mask_logits
        assert not torch.allclose(refined, output.mask_logits)

    def test_each_head_first_looks_in_its_own_direction(self, model):
        """The initial sampling offsets are Deformable DETR's, not noise: children must not be initialised over."""
        attention = model.pixel_decoder.layers[0].attention
        offsets = attention.sampling_offsets.bias.view(attention.num_heads, 3, attention.num_points, 2)
        assert offsets[0, :, 0].tolist() == [[1, 0]] * 3
        assert offsets[0, 0, :, 0].tolist() == [1, 2, 3, 4]
        assert not attention.sampling_offsets.weight.any()


class TestSaving:
    def test_whoever_may_read_the_configuration_may_read_the_weights(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        modes = {(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")}
        assert len(modes) == 1

    def test_round_trip_is_bit_for_bit(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = OMGSegModel.from_pretrained(tmp_path)
        assert loaded.config.to_dict() == {**model.config.to_dict(), **_written(loaded, model)}
        ours, theirs = model.state_dict(), loaded.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        # Mapped files are not aligned as fresh memory is, and the order of sums follows alignment: copy first.
        first, second = (copy.deepcopy(m).eval()(pictures(), class_embeds=class_embeds(m)) for m in (model, loaded))
        assert torch.equal(first.mask_logits, second.mask_logits)
        assert torch.equal(first.class_logits, second.class_logits)

    def test_auto_classes_load_it(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        assert isinstance(AutoConfig.from_pretrained(tmp_path), OMGSegConfig)
        assert isinstance(AutoModel.from_pretrained(tmp_path), OMGSegModel)

    def test_nothing_stays_on_meta_or_uninitialised(self, tmp_path):
        for kind in ("convnext", "swin"):
            model = tiny_model(**BACKBONES[kind])
            model.save_pretrained(tmp_path / kind)
            loaded = OMGSegModel.from_pretrained(tmp_path / kind)
            expected = dict(model.named_buffers())
            found = dict(loaded.named_buffers())
            assert expected.keys() == found.keys()
            for name, value in found.items():
                assert value.device.type == "cpu"
                assert torch.equal(value, expected[name]), name

    def test_weights_are_safetensors(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


def _written(loaded, model):
    """What saving adds to a configuration."""
    theirs = loaded.config.to_dict()
    return {key: theirs[key] for key in theirs if theirs[key] != model.config.to_dict().get(key, ...)} | {
        key: value for key, value in theirs.items() if key in ("architectures", "dtype", "_name_or_path")
    }


BACKBONES = {
    "convnext": {},
    "efficientnet": {"backbone_name": "tf_efficientnet_lite0", "backbone_options": {}},
    "resnet": {"backbone_name": "resnet10t", "backbone_options": {}},
    "open_clip": {
        "backbone_kind": "open_clip",
        "backbone_name": "convnext_large_d_320",
        "backbone_options": {"dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    },
    "swin": {
        "backbone_name": "swin_tiny_patch4_window7_224",
        "backbone_options": {
            "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "img_size": 64,
            "strict_img_size": False,
        },
    },
    "convnextv2": {"backbone_name": "convnextv2_atto"},
    "regnet": {"backbone_name": "regnetx_002", "backbone_options": {}},
    "mobilenet": {"backbone_name": "mobilenetv2_035", "backbone_options": {}},
    "auto_resnet": {
        "backbone_kind": "transformers",
        "backbone_name": None,
        "backbone_options": {
            "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
            "layer_type": "basic",
        },
    },
    "auto_dinov3": {
        "backbone_kind": "transformers",
        "backbone_name": None,
        "backbone_options": {"model_type": "dinov3_convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    },
    "auto_convnextv2": {
        "backbone_kind": "transformers",
        "backbone_name": None,
        "backbone_options": {"model_type": "convnextv2", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    },
    "auto_swin": {
        "backbone_kind": "transformers",
        "backbone_name": None,
        "backbone_options": {
            "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4,
        },
    },
}  # fmt: skip


class TestBackbones:
    @pytest.mark.parametrize("kind", BACKBONES)
    def test_every_kind_gives_four_maps(self, kind):
        model = tiny_model(**BACKBONES[kind])
        output = model(pictures(1, (64, 96)), class_embeds=class_embeds(model))
        assert output.mask_logits.shape[-2:] == (16, 24)
        assert output.mask_logits.isfinite().all()

    @pytest.mark.parametrize(
        ("kind", "is_safe"),
        [(kind, "swin" not in kind) for kind in BACKBONES],
    )
    def test_windows_and_attention_are_known_to_leak_padding(self, kind, is_safe):
        assert tiny_model(**BACKBONES[kind]).config.backbone_pads_safely is is_safe

    def test_unknown_timm_name_lists_near_ones(self):
        with pytest.raises(ValueError, match=r"convnext_.*timm does not know.*convnext_"):
            tiny_model(backbone_name="convnext_tinny")

    def test_plain_vision_transformers_are_refused_by_name(self):
        with pytest.raises(ValueError, match="hierarchical"):
            tiny_model(backbone_name="vit_tiny_patch16_224", backbone_options={})

    def test_open_clip_names_without_a_convnext_trunk_are_refused(self):
        with pytest.raises(ValueError, match=r"ViT-B-32.*convnext_"):
            tiny_model(backbone_kind="open_clip", backbone_name="ViT-B-32")


class TestTraining:
    def loss(self, model):
        output = model(pictures(), class_embeds=class_embeds(model), output_auxiliary=True)
        return sum(layer.mask_logits.square().mean() for layer in (*output.auxiliary, output)) + (
            output.class_logits.square().mean() + output.iou_logits.square().mean()
        )

    def test_gradient_checkpointing_changes_no_gradient(self):
        plain, saving = tiny_model().train(), tiny_model().train()
        saving.gradient_checkpointing_enable()
        self.loss(plain).backward()
        self.loss(saving).backward()
        gradients = dict(saving.named_parameters())
        compared = 0
        for name, parameter in plain.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, gradients[name].grad)
                compared += 1
        assert compared > 100

    def test_a_frozen_backbone_gets_no_gradient_and_stays_in_evaluation_mode(self):
        model = tiny_model(freeze_backbone=True).train()
        assert not model.backbone.training
        assert model.pixel_decoder.training
        features = model.get_image_features(pictures())
        assert not features.clip_map.requires_grad
        self.loss(model).backward()
        assert all(parameter.grad is None for parameter in model.backbone.parameters())
        assert model.pixel_decoder.mask_projection.weight.grad is not None

    def test_batch_statistics_stay_as_learned(self):
        model = tiny_model(backbone_name="resnet10t", backbone_options={}).train()
        before = {name: value.clone() for name, value in model.backbone.named_buffers()}
        self.loss(model).backward()
        assert before
        assert all(torch.equal(before[name], value) for name, value in model.backbone.named_buffers())

    def test_bfloat16_autocast_stays_close(self, model):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = model(pictures(), class_embeds=class_embeds(model))
        assert output.class_logits.isfinite().all()
        assert output.mask_logits.isfinite().all()

    def test_sampling_locations_stay_exact_under_autocast(self, model):
        """Rounding locations to bfloat16 moves them by whole cells; the rest of the pixel decoder may round."""
        content_maps = model.backbone(pictures(), _no_padding())
        with torch.no_grad():
            exact, _ = model.pixel_decoder(content_maps, _no_padding())
            with torch.autocast("cpu", torch.bfloat16):
                rounded, _ = model.pixel_decoder(content_maps, _no_padding())
        error = (exact - rounded.float()).abs().max() / exact.abs().max()
        assert error < 0.05

    def test_runs_in_pure_bfloat16(self):
        model = tiny_model().bfloat16()
        with torch.no_grad():
            output = model(pictures().bfloat16(), class_embeds=class_embeds(model))
        assert output.class_logits.isfinite().all()

    @pytest.mark.parametrize(
        "question",
        [
            pytest.param("names and padding", marks=pytest.mark.slow),
            pytest.param("points of clips", marks=pytest.mark.slow),
            pytest.param("boxes", marks=pytest.mark.slow),
            "clips",
        ],
    )
    def test_compiles_without_a_graph_break(self, model, question):
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        frames, mask = pictures(), torch.ones(2, 64, 96, dtype=torch.bool)
        mask[1, :, 70:] = False
        inputs = {
            "names and padding": {"pixel_mask": mask, "class_embeds": class_embeds(model)},
            "points of clips": {"pixel_mask": mask, "input_points": torch.full((2, 3, 1, 2), 20.0)},
            "boxes": {"pixel_mask": mask, "input_boxes": torch.tensor([[[4.0, 5, 30, 40]]] * 2)},
            "clips": {"class_embeds": class_embeds(model)},
        }[question]
        frames = torch.stack([frames, frames.flip(-1)], 1) if "clips" in question else frames
        with torch.no_grad():
            expected, output = (call(frames, **inputs) for call in (model, compiled))
        torch.testing.assert_close(output.mask_logits, expected.mask_logits)
        if "class_embeds" in inputs:
            torch.testing.assert_close(output.class_logits, expected.class_logits)


def _no_padding():
    from omg_transformers.model.padding import Content

    return Content(None, (64, 96))


class TestBadInput:
    def test_configuration_reports_all_problems_at_once(self):
        with pytest.raises(Exception, match=r"(?s)num_queries is 0.*backbone_kind is 'x'.*hidden_size is 30"):
            OMGSegConfig.tiny(num_queries=0, backbone_kind="x", hidden_size=30)

    @pytest.mark.parametrize("options", [{"panoptic": 0.3}, {"panoptic": {1: 2}}])
    def test_head_options_that_are_no_options_are_refused(self, options):
        with pytest.raises(Exception, match=r"head_options\['panoptic'\] is"):
            OMGSegConfig.tiny(head_options=options)

    def test_misspelt_setting_names_the_right_one(self):
        with pytest.raises(ValueError, match="did you mean 'num_queries'"):
            OMGSegConfig.tiny(num_querys=5)

    def test_wrong_type_is_refused(self):
        with pytest.raises(Exception, match="num_queries"):
            OMGSegConfig.tiny(num_queries="many")

    def test_unpadded_size_says_what_to_pad_to(self, model):
        with pytest.raises(ValueError, match="64 x 128"):
            model(torch.zeros(1, 3, 60, 100))

    def test_wrong_rank_of_pixels(self, model):
        with pytest.raises(ValueError, match=r"pixel_values.*\(B, 3, H, W\)"):
            model(torch.zeros(3, 64, 64))

    def test_wrong_pixel_mask(self, model):
        with pytest.raises(ValueError, match=r"pixel_mask.*\(1, 64, 64\)"):
            model(torch.zeros(1, 3, 64, 64), pixel_mask=torch.ones(1, 32, 64))

    def test_neither_pixels_nor_features(self, model):
        with pytest.raises(ValueError, match="pixel_values or image_features"):
            model()

    def test_class_embeds_of_another_width(self, model):
        with pytest.raises(ValueError, match=r"class_embeds.*16"):
            model(pictures(), class_embeds=torch.zeros(5, 1, 7))

    def test_points_and_boxes_for_different_numbers_of_objects(self, model):
        with pytest.raises(ValueError, match="different numbers of objects"):
            model(pictures(), input_points=torch.zeros(2, 1, 1, 2), input_boxes=torch.zeros(2, 2, 4))

    def test_background_points_alone_are_refused(self, model):
        with pytest.raises(ValueError, match="only points outside"):
            model(pictures(), input_points=torch.ones(2, 1, 1, 2), input_labels=torch.zeros(2, 1, 1))

    def test_boxes_for_another_batch(self, model):
        with pytest.raises(ValueError, match=r"input_boxes.*\(2, N, 4\)"):
            model(pictures(), input_boxes=torch.zeros(1, 1, 4))

    def test_unknown_query_type_lists_known_ones(self, model):
        with pytest.raises(ValueError, match="learned, prompt"):
            model(pictures(), query_type="scribble")

    def test_seen_classes_need_a_clip_head(self, model):
        with pytest.raises(ValueError, match="CLIP head"):
            model(pictures(), class_embeds=class_embeds(model), seen_classes=torch.ones(5, dtype=torch.bool))
