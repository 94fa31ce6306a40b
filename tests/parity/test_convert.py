"""Published weights become ours: every tensor placed, nothing left over, refused when it is not what it seems."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omg_transformers import LabelSpace, OMGSegModel
from omg_transformers.model.convert import convert_checkpoint, convert_state_dict, our_keys

from .conftest import assert_close


@pytest.fixture(scope="session")
def full_size_shapes(golden_model: Path) -> dict[str, list[int]]:
    path = golden_model.parent / "model_full_state_dict_keys.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside the reference outputs")
    return json.loads(path.read_text())


class TestTiny:
    @pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
    def test_a_file_converts_and_answers_as_the_original(
        self, official_weights, golden, class_embeds, wrapped, tmp_path
    ):
        file = tmp_path / "published.pth"
        torch.save({"state_dict": official_weights, "meta": {"epoch": 12}} if wrapped else official_weights, file)
        model = OMGSegModel.from_pretrained(convert_checkpoint(file, tmp_path / "converted")).eval()
        reference = golden("image_forward")
        with torch.no_grad():
            output = model(reference["pixel_values"], class_embeds=class_embeds)
        last = reference.indices(r"layer\.(\d+)\.cls")[-1]
        assert_close(output.class_logits, reference[f"layer.{last}.cls"], 2e-3)
        assert_close(output.mask_logits[:, :, 0], reference[f"layer.{last}.mask"], 1e-3)

    def test_safetensors_convert_too(self, official_weights, tmp_path):
        save_file(official_weights, tmp_path / "published.safetensors")
        convert_checkpoint(tmp_path / "published.safetensors", tmp_path / "converted")
        assert OMGSegModel.from_pretrained(tmp_path / "converted").config.text_dim > 0

    def test_every_tensor_has_one_place(self, official_weights):
        config, converted = convert_state_dict(official_weights)
        assert sum(value.numel() for value in official_weights.values()) == sum(v.numel() for v in converted.values())
        assert OMGSegModel(config).state_dict().keys() == converted.keys()

    def test_sizes_are_read_from_the_shapes(self, official_weights, golden):
        described = golden("image_forward").meta["config"]
        config, _ = convert_state_dict(official_weights)
        found = (
            config.hidden_size, config.num_attention_heads, config.num_queries, config.decoder_layers,
            config.decoder_ffn_size, config.pixel_decoder_layers, config.pixel_decoder_ffn_size, config.text_dim,
            config.backbone_options,
        )  # fmt: skip
        assert found == (
            described["feat"], described["heads"], described["queries"], described["dec_layers"],
            described["dec_ffn"], described["enc_layers"], described["enc_ffn"], described["clip_dim"],
            {"dims": described["dims"], "depths": described["depths"]},
        )  # fmt: skip

    def test_the_original_label_spaces_are_attached(self, official_weights):
        config, _ = convert_state_dict(official_weights)
        spaces = {name: LabelSpace.from_dict(entry) for name, entry in config.label_spaces.items()}
        assert len(spaces["coco_panoptic"].names) == 133


class TestFullSize:
    def test_every_published_key_has_a_place(self, full_size_shapes):
        with torch.device("meta"):
            state_dict = {key: torch.empty(shape) for key, shape in full_size_shapes.items()}
        config, converted = convert_state_dict(state_dict)
        assert len(state_dict) == 655
        assert (config.num_queries, config.hidden_size, config.text_dim) == (300, 256, 768)
        assert (config.num_attention_heads, config.pixel_decoder_layers, config.decoder_layers) == (8, 6, 9)
        with torch.device("meta"):
            expected = OMGSegModel(config).state_dict()
        assert {key: value.shape for key, value in expected.items()} == {k: v.shape for k, v in converted.items()}
        assert sum(value.numel() for value in converted.values()) == 220_781_185


class TestBadCheckpoints:
    def test_foreign_keys_are_listed(self, official_weights):
        with pytest.raises(ValueError, match=r"(?s)does not have.*roi_head\.bbox\.weight"):
            convert_state_dict({**official_weights, "roi_head.bbox.weight": torch.zeros(1)})

    def test_missing_keys_are_listed(self, official_weights):
        partial = dict(official_weights)
        del partial["panoptic_head.mask_embed.2.bias"], partial["backbone.stem.0.bias"]
        with pytest.raises(ValueError, match=r"(?s)missing.*backbone\.stem\.0\.bias.*mask_head\.layers\.1\.bias"):
            convert_state_dict(partial)

    def test_another_model_is_refused(self):
        with pytest.raises(ValueError, match=r"not a whole OMG-Seg checkpoint"):
            convert_state_dict({"model.encoder.weight": torch.zeros(3)})

    def test_shapes_that_contradict_each_other_are_listed(self, official_weights):
        key = "panoptic_head.mask_embed.0.weight"
        with pytest.raises(ValueError, match=r"mask_head\.layers\.0\.weight: \(3, 3\)"):
            convert_state_dict({**official_weights, key: torch.zeros(3, 3)})

    def test_without_prompt_weights_it_converts_and_says_so(self, official_weights):
        prompt = ("mask_tokens", "pb_embedding", "pos_linear")
        closed = {key: v for key, v in official_weights.items() if key.split(".")[1] not in prompt}
        assert len(official_weights) - len(closed) == 4
        with pytest.warns(UserWarning, match="prompt"):
            convert_state_dict(closed)

    def test_a_pickle_with_code_in_it_is_refused_and_not_run(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "it_ran",))

        (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Payload()}))
        with pytest.raises(ValueError, match="refused"):
            convert_checkpoint(tmp_path / "evil.pth", tmp_path / "out")
        assert not (tmp_path / "it_ran").exists()
        assert not (tmp_path / "out").exists()

    def test_a_truncated_file_is_refused(self, official_weights, tmp_path):
        torch.save(official_weights, tmp_path / "whole.pth")
        (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
        with pytest.raises(ValueError, match=r"half\.pth was refused"):
            convert_checkpoint(tmp_path / "half.pth", tmp_path / "out")

    def test_a_truncated_safetensors_file_is_refused(self, official_weights, tmp_path):
        save_file(official_weights, tmp_path / "whole.safetensors")
        (tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:100_000])
        with pytest.raises(ValueError, match=r"half\.safetensors was refused"):
            convert_checkpoint(tmp_path / "half.safetensors", tmp_path / "out")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
            convert_checkpoint(tmp_path / "nothing.pth", tmp_path / "out")

    def test_tensors_under_no_name_are_refused(self, tmp_path):
        torch.save([torch.zeros(1)], tmp_path / "list.pth")
        with pytest.raises(ValueError, match="no tensors by name"):
            convert_checkpoint(tmp_path / "list.pth", tmp_path / "out")


def test_unknown_keys_have_no_place():
    assert our_keys("panoptic_head.cls_embed") == ()
