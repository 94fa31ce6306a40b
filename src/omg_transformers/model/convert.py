"""Published OMG-Seg checkpoints to ours: one table of key patterns, loud on anything left over."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from omg_transformers.labels import builtin_label_space
from omg_transformers.model.configuration import OMGSegConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD = "panoptic_head."
_ENCODER = _HEAD + r"pixel_decoder.encoder.layers.(\d+)."
_DECODER = _HEAD + r"transformer_decoder.layers.(\d+)."
_FFN = {"ffn.layers.0.0": "fc1", "ffn.layers.1": "fc2"}

# Original prefix (a regular expression in which "." stands for itself) -> ours. Rows are tried in order.
KEY_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"backbone.stem.", r"backbone.stem."),
    *((rf"backbone.layer{stage + 1}.", rf"backbone.stages.{stage}.") for stage in range(4)),
    (r"backbone.head.0.norm.", r"backbone.head_norm."),
    (r"backbone.head.1.mlp.(fc[12]).", r"backbone.head_\1."),
    (_HEAD + r"pixel_decoder.input_convs.(\d+).conv.", r"pixel_decoder.input_projections.\1.convolution."),
    (_HEAD + r"pixel_decoder.input_convs.(\d+).gn.", r"pixel_decoder.input_projections.\1.norm."),
    (_ENCODER + r"self_attn.", r"pixel_decoder.layers.\1.attention."),
    *((_ENCODER + old + ".", rf"pixel_decoder.layers.\1.{new}.") for old, new in _FFN.items()),
    (_ENCODER + r"norms.0.", r"pixel_decoder.layers.\1.attention_norm."),
    (_ENCODER + r"norms.1.", r"pixel_decoder.layers.\1.ffn_norm."),
    (_HEAD + r"pixel_decoder.level_encoding.", r"pixel_decoder.level_embedding."),
    (_HEAD + r"pixel_decoder.lateral_convs.0.conv.", r"pixel_decoder.lateral_projection.convolution."),
    (_HEAD + r"pixel_decoder.lateral_convs.0.gn.", r"pixel_decoder.lateral_projection.norm."),
    (_HEAD + r"pixel_decoder.output_convs.0.conv.", r"pixel_decoder.output_convolution.convolution."),
    (_HEAD + r"pixel_decoder.output_convs.0.gn.", r"pixel_decoder.output_convolution.norm."),
    (_HEAD + r"pixel_decoder.mask_feature.", r"pixel_decoder.mask_projection."),
    (_DECODER + r"(self|cross)_attn.attn.", r"query_decoder.layers.\1.\2_attention."),
    *((_DECODER + old + ".", rf"query_decoder.layers.\1.{new}.") for old, new in _FFN.items()),
    (_DECODER + r"norms.0.", r"query_decoder.layers.\1.cross_attention_norm."),
    (_DECODER + r"norms.1.", r"query_decoder.layers.\1.self_attention_norm."),
    (_DECODER + r"norms.2.", r"query_decoder.layers.\1.ffn_norm."),
    (_HEAD + r"transformer_decoder.post_norm.", r"query_decoder.norm."),
    (_HEAD + r"level_embed.", r"query_decoder.level_embedding."),
    (_HEAD + r"query_feat.", r"query_encoders.learned.content."),
    (_HEAD + r"query_embed.", r"query_encoders.learned.position."),
    *(
        (_HEAD + rf"{old}.{2 * layer}.", rf"query_decoder.{new}.layers.{layer}.")
        for old, new in (
            ("mask_embed", "mask_head"),
            ("iou_embed", "iou_head"),
            ("cls_proj", "classifier.text_projection"),
        )
        for layer in range(3)
    ),
    (_HEAD + r"mask_pooling_proj.0.", r"query_decoder.classifier.pooled_norm."),
    (_HEAD + r"mask_pooling_proj.1.", r"query_decoder.classifier.pooled_projection."),
    (_HEAD + r"mask_tokens.", r"query_encoders.prompt.mask_token."),
    (_HEAD + r"pb_embedding.", r"query_encoders.prompt.type_embedding."),
    (_HEAD + r"pos_linear.", r"query_encoders.prompt.position_projection."),
)
_COMPILED = tuple((re.compile("^" + old.replace(".", r"\.").replace(r"\\.", ".")), new) for old, new in KEY_PATTERNS)
# Attention keeps one matrix for queries, keys and values in the original, three in ours.
_PACKED = re.compile(r"(.*\.)in_proj_(weight|bias)$")
_PARTS = ("q_proj", "k_proj", "v_proj")
_PROMPT_PREFIX = "query_encoders.prompt."

# Widths of the first map -> open_clip model whose visual trunk it is.
_TRUNKS = {128: "convnext_base_w_320", 192: "convnext_large_d_320", 384: "convnext_xxlarge"}
_SPACES = ("coco_panoptic", "youtube_vis_2019", "vipseg", "cityscapes")


def our_keys(original_key: str) -> tuple[str, ...]:
    """Our names for one tensor of the original: three for a packed attention matrix, none if it is unknown."""
    for pattern, replacement in _COMPILED:
        if pattern.match(original_key):
            key = pattern.sub(replacement, original_key, count=1)
            packed = _PACKED.match(key)
            return tuple(f"{packed[1]}{part}.{packed[2]}" for part in _PARTS) if packed else (key,)
    return ()


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> tuple[OMGSegConfig, dict[str, Tensor]]:
    """Configuration and weights of ours from the original's; every size is read from the shapes.

    Raises ValueError that lists all keys it cannot place and all that are missing.
    """
    converted: dict[str, Tensor] = {}
    foreign = []
    for key, value in state_dict.items():
        names = our_keys(key)
        if not names:
            foreign.append(key)
        parts = value.chunk(len(names)) if len(names) > 1 else (value,)
        converted.update({name: part.contiguous() for name, part in zip(names, parts, strict=False)})
    config = None if foreign else _read_config(state_dict)
    missing = _missing_keys(config, converted) if config else _required_anchors(state_dict)
    if foreign or missing:
        problems = [
            f"{title}:\n" + "\n".join(f"  {key}" for key in sorted(keys))
            for title, keys in (("keys that OMG-Seg does not have", foreign), ("keys that are missing", missing))
            if keys
        ]
        raise ValueError("this is not a whole OMG-Seg checkpoint; is it the right file?\n" + "\n".join(problems))
    assert config is not None
    return config, converted


_ANCHORS = (
    "backbone.stem.0.weight",
    "backbone.head.1.mlp.fc2.weight",
    _HEAD + "query_feat.weight",
    _HEAD + "pixel_decoder.encoder.layers.0.self_attn.attention_weights.weight",
    _HEAD + "pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight",
    _HEAD + "transformer_decoder.layers.0.ffn.layers.0.0.weight",
    *(f"backbone.layer{stage}.blocks.0.conv_dw.weight" for stage in range(1, 5)),
)


def _required_anchors(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Tensors without which not even the sizes can be read."""
    return [key for key in _ANCHORS if key not in state_dict]


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state_dict if (match := re.match(pattern, key))})


def _read_config(state_dict: Mapping[str, Tensor]) -> OMGSegConfig | None:
    if _required_anchors(state_dict):
        return None
    shape = {key: tuple(state_dict[key].shape) for key in _ANCHORS}
    dims = [shape[f"backbone.layer{stage}.blocks.0.conv_dw.weight"][0] for stage in range(1, 5)]
    depths = [_count(state_dict, rf"backbone\.layer{stage}\.blocks\.(\d+)\.") for stage in range(1, 5)]
    points = 4  # the original's only value; heads follow from heads x 3 levels x points
    return OMGSegConfig(
        backbone_kind="open_clip",
        backbone_name=_TRUNKS.get(dims[0], "convnext_large_d_320"),
        backbone_options={"dims": dims, "depths": depths},
        text_dim=shape["backbone.head.1.mlp.fc2.weight"][0],
        num_queries=shape[_HEAD + "query_feat.weight"][0],
        hidden_size=shape[_HEAD + "query_feat.weight"][1],
        num_attention_heads=shape[_ANCHORS[3]][0] // (3 * points),
        pixel_decoder_points=points,
        pixel_decoder_layers=_count(state_dict, r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)\."),
        pixel_decoder_ffn_size=shape[_ANCHORS[4]][0],
        decoder_layers=_count(state_dict, r"panoptic_head\.transformer_decoder\.layers\.(\d+)\."),
        decoder_ffn_size=shape[_ANCHORS[5]][0],
        point_prompt_row=0,
        label_spaces={name: builtin_label_space(name).to_dict() for name in _SPACES},
        default_task="panoptic",
    )


def _missing_keys(config: OMGSegConfig, converted: Mapping[str, Tensor]) -> list[str]:
    """Keys of ours that have no value; raises if a shape does not fit."""
    from omg_transformers.model.modeling import OMGSegModel

    with torch.device("meta"):
        expected = OMGSegModel(config).state_dict()
    wrong = [
        f"{key}: {tuple(converted[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in converted and converted[key].shape != value.shape
    ]
    if wrong:
        raise ValueError("the checkpoint contradicts itself, these shapes do not fit:\n  " + "\n  ".join(wrong))
    missing = [key for key in expected if key not in converted]
    prompt = [key for key in expected if key.startswith(_PROMPT_PREFIX)]
    if prompt and all(key in missing for key in prompt):
        warnings.warn(
            "the checkpoint has no prompt weights (trained without box queries): prompts stay untrained", stacklevel=3
        )
        missing = [key for key in missing if key not in prompt]
    return missing


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or `.safetensors` file, bare or wrapped as {"state_dict": ...}. Runs no code in it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist: give the path of a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # several kinds are raised for damaged files and for refused code
        raise ValueError(
            f"checkpoint {path} was refused: it is damaged, or holds Python objects that could run code. "
            f"Re-save it as torch.save({{'state_dict': model.state_dict()}}, ...) or safetensors. ({error})"
        ) from error
    wrapped = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(wrapped, dict) or not all(isinstance(value, Tensor) for value in wrapped.values()):
        raise ValueError(
            f"checkpoint {path} holds no tensors by name: expected a state dict, bare or under 'state_dict'"
        )
    return dict(wrapped)


def convert_checkpoint(checkpoint: str | Path, out: str | Path) -> Path:
    """Write a folder that `OMGSegModel.from_pretrained` loads, from a published checkpoint. Returns the folder."""
    from omg_transformers.model.modeling import OMGSegModel

    config, state_dict = convert_state_dict(read_checkpoint(checkpoint))
    with torch.device("meta"):
        model = OMGSegModel(config)
    model.load_state_dict(state_dict, strict=True, assign=True)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out is {out}, a file: give a folder")
    model.save_pretrained(out)
    return out
