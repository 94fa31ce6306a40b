"""Everything that shapes an OMG-Seg model, validated on construction."""

import difflib
import math
from typing import Any, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

BACKBONE_KINDS = ("open_clip", "timm", "transformers")


@strict
class OMGSegConfig(PreTrainedConfig):
    """Configuration of `OMGSegModel`. The defaults are the published model (OMG-Seg, ConvNeXt-L, 300 queries).

    backbone_kind, backbone_name, backbone_options: where the trunk comes from.
      "open_clip": visual trunk of an open_clip model by its name, with its CLIP head; options go to timm.
      "timm": `timm.create_model(name, features_only=True, **options)`.
      "transformers": options are an `AutoBackbone` configuration with `model_type`; there is no name.
    text_dim: D of the class embeddings that `forward` takes.
    pixel_decoder_points: sampled points per head and level. group_norm_groups: of the pixel decoder's norms.
    logit_scale: class logits are this times a cosine.
    seen_exponent, unseen_exponent: weight of the CLIP opinion for classes seen / not seen in training (FC-CLIP).
    backbone_names: names are also read from the backbone's own maps inside each mask; off in converted weights.
    backbone_names_exponent: weight of that opinion against the decoder's.
    point_prompt_row: which row of the prompt-type embedding points use; converted weights use 0, like boxes,
      since the original never trained row 1.
    mask_refinement: a last step that sharpens each mask around its anchor; off in converted weights.
    prompt_grounding: prompts start from the features where they point; off in converted weights.
    prompt_correction: a last step through which further clicks, boxes and given masks correct the masks of prompts;
      without it an untrained rule combines the answers to single prompts.
    single_prompt_correction: a prompt that is alone goes through that step, too.
    query_encoders: query types that plug-ins bring: name -> {"distribution": str, "options": dict}.
    label_spaces: name -> `LabelSpace.to_dict()` of the spaces the weights were trained on.
    default_task: the head that the pipeline uses when none is named.
    head_options: task -> keyword options of its head's `postprocess` that suit these weights, such as
      {"panoptic": {"threshold": 0.1}}; pipeline and command line use them where a call gives none of its own.
    backbone_pads_safely: set by the model: padding in a batch never changes an answer.
    """

    model_type = "omg_seg"

    backbone_kind: str = "open_clip"
    backbone_name: str | None = "convnext_large_d_320"
    backbone_options: dict[str, Any] | None = None
    freeze_backbone: bool = True
    backbone_pads_safely: bool = True
    text_dim: int = 768
    hidden_size: int = 256
    num_attention_heads: int = 8
    pixel_decoder_layers: int = 6
    pixel_decoder_ffn_size: int = 1024
    pixel_decoder_points: int = 4
    group_norm_groups: int = 32
    decoder_layers: int = 9
    decoder_ffn_size: int = 2048
    num_queries: int = 300
    layer_norm_eps: float = 1e-5
    logit_scale: float = math.exp(4.6052)
    seen_exponent: float = 0.4
    unseen_exponent: float = 0.8
    backbone_names: bool = False
    backbone_names_exponent: float = 0.5
    point_prompt_row: int = 1
    point_prompt_radius: float = 3.0
    mask_refinement: bool = False
    mask_refinement_size: int = 16
    prompt_grounding: bool = False
    prompt_correction: bool = False
    prompt_correction_size: int = 16
    single_prompt_correction: bool = False
    query_encoders: dict[str, Any] | None = None
    label_spaces: dict[str, Any] | None = None
    default_task: str | None = None
    head_options: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        own = {name for name in vars(type(self)) if not name.startswith("_")} & set(type(self).__annotations__)
        for name in kwargs:
            # Transformers keeps settings it does not know, so a misspelt one would be ignored in silence.
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
            if near:
                raise ValueError(f"OMGSegConfig has no setting {name!r}: did you mean {near[0]!r}?")
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Report every value that cannot be built, all at once."""
        problems = [
            f"{name} is {value}: expected at least {least}"
            for name, least in _LEAST.items()
            if isinstance(value := getattr(self, name), int | float) and value < least
        ]
        if self.backbone_kind not in BACKBONE_KINDS:
            problems.append(f"backbone_kind is {self.backbone_kind!r}: expected one of {', '.join(BACKBONE_KINDS)}")
        if self.backbone_kind != "transformers" and not self.backbone_name:
            problems.append(f"backbone_name is empty: name a model of {self.backbone_kind}")
        if self.hidden_size % 4 or self.hidden_size % max(self.num_attention_heads, 1):
            problems.append(
                f"hidden_size is {self.hidden_size}: expected a multiple of 4 and of "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        if self.group_norm_groups > 0 and self.hidden_size % self.group_norm_groups:
            problems.append(
                f"group_norm_groups is {self.group_norm_groups}: expected a divisor of hidden_size ({self.hidden_size})"
            )
        if self.point_prompt_row not in (0, 1):
            problems.append(f"point_prompt_row is {self.point_prompt_row}: expected 0 (as boxes) or 1")
        if self.single_prompt_correction and not self.prompt_correction:
            problems.append("single_prompt_correction is on but prompt_correction is off: switch both on, or both off")
        problems += [
            f"query_encoders names {name!r}, which the core provides: choose another name"
            for name in self.query_encoders or {}
            if name in ("learned", "prompt")
        ]
        problems += [
            f"head_options[{task!r}] is {options!r}: expected a dictionary of the head's keyword options"
            for task, options in (self.head_options or {}).items()
            if not isinstance(options, dict) or not all(isinstance(name, str) for name in options)
        ]
        if problems:
            raise ValueError("OMGSegConfig cannot be built:\n- " + "\n- ".join(problems))

    @classmethod
    def tiny(cls, **overrides: Any) -> Self:
        """A model of a few hundred thousand random parameters with the same parts, for tests and examples."""
        settings: dict[str, Any] = {
            "backbone_kind": "timm",
            "backbone_name": "convnext_atto",
            "backbone_options": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
            "freeze_backbone": False,
            "text_dim": 16,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "pixel_decoder_layers": 1,
            "pixel_decoder_ffn_size": 48,
            "group_norm_groups": 8,
            "decoder_layers": 3,
            "decoder_ffn_size": 64,
            "num_queries": 12,
        }
        return cls(**{**settings, **overrides})


_LEAST = {
    "text_dim": 1,
    "hidden_size": 4,
    "num_attention_heads": 1,
    "pixel_decoder_layers": 1,
    "pixel_decoder_ffn_size": 1,
    "pixel_decoder_points": 1,
    "group_norm_groups": 1,
    "decoder_layers": 1,
    "decoder_ffn_size": 1,
    "num_queries": 1,
    "mask_refinement_size": 1,
    "prompt_correction_size": 1,
    "logit_scale": 1e-6,
    "layer_norm_eps": 0.0,
    "seen_exponent": 0.0,
    "unseen_exponent": 0.0,
    "backbone_names_exponent": 0.0,
    "point_prompt_radius": 0.0,
}
