"""OMG-Seg: one backbone, one pixel decoder and one query decoder for every segmentation task (CVPR 2024)."""

from __future__ import annotations

import functools
import os
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from omg_transformers.model.backbones import build_backbone, freeze
from omg_transformers.model.classifier import (
    BackboneNames,
    class_logits,
    fuse_open_vocabulary,
    fuse_opinions,
    pool_clip_features,
)
from omg_transformers.model.click_rule import add_click_queries, apply_clicks
from omg_transformers.model.configuration import OMGSegConfig
from omg_transformers.model.layers import ZeroConvolution, ZeroLinear
from omg_transformers.model.padding import Content
from omg_transformers.model.pixel_decoder import PixelDecoder, SamplingOffsets
from omg_transformers.model.query_decoder import ImageFeatures, Prediction, QueryDecoder
from omg_transformers.model.query_encoders import build_query_encoders
from omg_transformers.structures import QueryOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omg_transformers.model.backbones import OpenClipBackbone

STRIDE = 32
# At once in inference on a CPU. What larger batches free goes back to the system, and paging it in again costs a third.
PIXELS_AT_ONCE = 100_000


@dataclass
class OMGSegOutput(ModelOutput):
    """What the model found. B clips, Q queries, T frames (1 for a picture), K class names.

    class_logits: (B, Q, K + 1), void last; None without `class_embeds`.
    mask_logits: (B, Q, T, H / 4, W / 4) on the padded grid. iou_logits: (B, Q) quality of each mask.
    query_states: (B, Q, D) before the last norm.
    backbone_class_logits: (B, Q, K) with `output_auxiliary`, what the backbone's maps say of the names; otherwise it is
    in `class_logits` already. content_sizes: (B, 2) picture sizes inside the input of `input_size`.
    auxiliary: with `output_auxiliary`, the predictions of earlier layers, coarse first.
    """

    class_logits: Tensor | None = None
    mask_logits: Tensor | None = None
    iou_logits: Tensor | None = None
    query_states: Tensor | None = None
    backbone_class_logits: Tensor | None = None
    auxiliary: tuple[QueryOutput, ...] | None = None
    content_sizes: Tensor | None = None
    input_size: tuple[int, int] | None = None

    def to_query_output(self) -> QueryOutput:
        """The form that task heads read."""
        if self.mask_logits is None:
            raise ValueError("mask_logits is None: this output did not come from OMGSegModel.forward")
        sizes = self.content_sizes
        return QueryOutput(
            class_logits=self.class_logits,
            mask_logits=self.mask_logits,
            iou_logits=self.iou_logits,
            query_states=self.query_states,
            backbone_class_logits=self.backbone_class_logits,
            input_size=self.input_size,
            content_sizes=None if sizes is None else tuple((int(h), int(w)) for h, w in sizes.tolist()),
        )


class OMGSegModel(PreTrainedModel):
    """Segments pictures and clips: everything in them, or what points, boxes or a plug-in's queries ask for."""

    config: OMGSegConfig
    config_class = OMGSegConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image", "video")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("PixelDecoderLayer", "QueryDecoderLayer")

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config)
        self._trunk_modules = frozenset(id(module) for module in self.backbone.modules())
        config.backbone_pads_safely = self.backbone.pads_safely
        self.pixel_decoder = PixelDecoder(self.backbone.channels, config)
        self.query_decoder = QueryDecoder(self.backbone.channels, config)
        self.query_encoders, self.missing_query_types = build_query_encoders(config)
        self._keys_to_ignore_on_load_unexpected = [rf"^query_encoders\.{name}\." for name in self.missing_query_types]
        if config.freeze_backbone:
            freeze(self.backbone)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "init_non_persistent_buffers"):
            cast("Any", module).init_non_persistent_buffers()  # timm: buffers that no checkpoint holds
        if id(module) in self._trunk_modules:
            return  # timm or transformers have initialised it
        # Called only for modules with parameters of their own, so containers cannot correct their parts.
        if isinstance(module, SamplingOffsets):
            init.zeros_(module.weight)
            init.copy_(module.bias, module.initial_bias())
        elif isinstance(module, nn.Linear | nn.Conv2d):
            if isinstance(module, ZeroLinear | ZeroConvolution):
                init.zeros_(module.weight)
            elif isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
            else:
                init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def train(self, mode: bool = True) -> OMGSegModel:
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.backbone.eval()
        return self

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As in transformers, but the weights may be read by whoever may read the configuration.

        Warns when a query type whose plug-in is missing would be lost.
        """
        if self.missing_query_types:
            warnings.warn(
                f"{save_directory} will lack the weights of {', '.join(sorted(self.missing_query_types))}: "
                "they were not loaded, because the plug-in is missing",
                stacklevel=2,
            )
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)
        for file in folder.glob("*.safetensors"):  # safetensors lets only the owner read what it writes
            if (folder / "config.json").is_file():
                shutil.copymode(folder / "config.json", file)

    def get_image_features(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> ImageFeatures:
        """Everything that does not depend on the queries; reuse it for any number of prompts and class names.

        pixel_values: (B, 3, H, W) or (B, T, 3, H, W), normalised, H and W multiples of 32.
        pixel_mask: (B, H, W), 1 where the picture is (top left), or None: no padding, or padding treated as picture.
        """
        pixel_values, content = _check_pixels(pixel_values, pixel_mask)
        num_frames = pixel_values.shape[1]
        frames, of_frames = pixel_values.flatten(0, 1), content.repeat(num_frames)
        step = len(frames)
        if frames.device.type == "cpu" and not torch.is_grad_enabled() and not self.training:
            step = max(1, PIXELS_AT_ONCE // (frames.shape[-2] * frames.shape[-1]))
        parts = [
            self._encode(frames[start : start + step], of_frames.rows(start, start + step))
            for start in range(0, len(frames), step)
        ]
        joined = parts[0] if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]
        mask_features, clip_map, *memories = joined
        name_map = memories.pop() if self.config.backbone_names else None
        return self.query_decoder.prepare(mask_features, memories, clip_map, content, num_frames, name_map)

    def _encode(self, frames: Tensor, content: Content) -> list[Tensor]:
        """frames: (N, 3, H, W). Returns mask features, the backbone's last map, the memories and, where names are read
        from them, the joined maps: (N, ., h, w) each."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_backbone):
            maps = self.backbone(frames, content)
        mask_features, memories = self.pixel_decoder(maps, content)
        name_maps = [BackboneNames.join(maps)] if self.config.backbone_names else []
        return [mask_features, maps[-1], *memories, *name_maps]

    def forward(
        self,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        class_embeds: Tensor | None = None,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        *,
        multimask_output: bool = False,
        query_type: str | None = None,
        query_inputs: Mapping[str, Any] | None = None,
        image_features: ImageFeatures | None = None,
        seen_classes: Tensor | None = None,
        output_auxiliary: bool = False,
        original_sizes: Tensor | None = None,  # noqa: ARG002 so that a processor's whole output can be passed
    ) -> OMGSegOutput:
        """Answer learned queries, or the prompts if there are any.

        pixel_values, pixel_mask: as in `get_image_features`; or its result as `image_features`.
        class_embeds: (K, P, text_dim) unit vectors, P synonyms per name; without them there are no class logits.
        input_points: (B, N, P, 2) (x, y); input_labels: (B, N, P), 1 inside, 0 outside, -10 no point; input_boxes:
        (B, N, 4) xyxy; all in pixels of the padded input. input_masks: (B, N, H / 4, W / 4) in [0, 1].
        multimask_output: NUM_CANDIDATES answers in a row per prompt, of other extents, instead of one.
        query_type, query_inputs: another query encoder by name, and its inputs.
        seen_classes: (K,) bool, which names were trained: fuses in the opinion of the CLIP backbone (FC-CLIP).
        """
        if (pixel_values is None) == (image_features is None):
            raise ValueError("give either pixel_values or image_features (from get_image_features), not both or none")
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values, pixel_mask)
        assert image_features is not None
        _check_class_embeds(class_embeds, self.config.text_dim)
        prompts = {
            "input_points": input_points,
            "input_labels": input_labels,
            "input_boxes": input_boxes,
            "input_masks": input_masks,
            "multimask_output": multimask_output or None,
        }
        prompts = {name: value for name, value in prompts.items() if value is not None}
        if query_type is None:
            query_type = "prompt" if prompts else "learned"
        content = image_features.content
        predictions, states = self._answer(
            self._query_encoder(query_type),
            {**prompts, **(query_inputs or {})},
            image_features,
            class_embeds,
            output_auxiliary=output_auxiliary,
        )
        last = predictions[-1]
        classes, opinion = last.class_logits, last.backbone_class_logits
        if classes is not None and opinion is not None and not output_auxiliary:
            classes, opinion = fuse_opinions(classes, opinion, self.config.backbone_names_exponent), None
        if seen_classes is not None:
            classes = self._fuse(replace(last, class_logits=classes), image_features, class_embeds, seen_classes)
        return OMGSegOutput(
            class_logits=classes,
            mask_logits=last.mask_logits,
            iou_logits=last.iou_logits,
            query_states=states,
            backbone_class_logits=opinion,
            auxiliary=_as_outputs(predictions[:-1]) if output_auxiliary else None,
            content_sizes=content.sizes,
            input_size=content.input_size,
        )

    def _answer(
        self,
        encoder: nn.Module,
        inputs: Mapping[str, Any],
        features: ImageFeatures,
        class_embeds: Tensor | None,
        *,
        output_auxiliary: bool,
    ) -> tuple[list[Prediction], Tensor]:
        """The decoder's predictions and states for what a query encoder makes of `inputs`."""
        _check_masks(inputs.get("input_masks"), features)
        encode = functools.partial(
            encoder,
            batch_size=features.batch_size,
            content_sizes=features.content.as_float(features.batch_size, features.clip_map.device),
        )
        queries = encode(inputs=inputs)
        decode = functools.partial(
            self.query_decoder, features=features, class_embeds=class_embeds, output_auxiliary=output_auxiliary
        )
        if queries.hints is None or self.query_decoder.correction is not None:
            return decode(queries)
        predictions, states = decode(add_click_queries(queries, encode, features.content))
        count = queries.content.shape[1]
        return [apply_clicks(item, queries, features.content) for item in predictions], states[:, :count]

    def clip_class_logits(
        self, clip_map: Tensor, mask_logits: Tensor, class_embeds: Tensor, content: Content
    ) -> tuple[Tensor, Tensor]:
        """The CLIP backbone's own class logits (B, Q, K + 1) for masks, and which masks it can see (B, Q).

        clip_map: (B, T, C, h, w). mask_logits: (B, Q, T, H, W) of any resolution.
        """
        mask = content.repeat(clip_map.shape[1]).mask((clip_map.shape[-2], clip_map.shape[-1]))
        is_content = None if mask is None else mask.view(len(clip_map), 1, -1)
        pooled, is_pooled = pool_clip_features(clip_map, mask_logits, is_content)
        embeds = cast("OpenClipBackbone", self.backbone).embed_pooled(pooled)
        return class_logits(embeds, class_embeds, self.config.logit_scale), is_pooled

    def _fuse(
        self, last: Prediction, features: ImageFeatures, class_embeds: Tensor | None, seen_classes: Tensor
    ) -> Tensor:
        if class_embeds is None or last.class_logits is None:
            raise ValueError("seen_classes needs class_embeds: pass the embeddings of the same names")
        if not self.backbone.has_clip_head:
            raise ValueError(
                f"seen_classes needs a backbone with a CLIP head, this one is {self.config.backbone_kind}: "
                "leave seen_classes out"
            )
        if seen_classes.shape != (len(class_embeds),):
            raise ValueError(
                f"seen_classes has shape {tuple(seen_classes.shape)}: expected ({len(class_embeds)},), one per name"
            )
        clip_logits, is_pooled = self.clip_class_logits(
            features.clip_map, last.mask_logits, class_embeds, features.content
        )
        return fuse_open_vocabulary(
            last.class_logits,
            clip_logits,
            seen_classes.bool(),
            is_pooled,
            seen_exponent=self.config.seen_exponent,
            unseen_exponent=self.config.unseen_exponent,
        )

    def _query_encoder(self, query_type: str) -> nn.Module:
        if query_type in self.missing_query_types:
            raise RuntimeError(self.missing_query_types[query_type])
        if query_type not in self.query_encoders:
            known = ", ".join(sorted(self.query_encoders))
            raise ValueError(f"query_type is {query_type!r}: this model has {known}")
        return self.query_encoders[query_type]


def _check_masks(masks: Any, features: ImageFeatures) -> None:
    size = tuple(features.mask_features.shape[-2:])
    if isinstance(masks, Tensor) and tuple(masks.shape[-2:]) != size:
        raise ValueError(
            f"input_masks has shape {tuple(masks.shape)}: expected (B, N, {size[0]}, {size[1]}), a quarter of the "
            "padded input (the processor makes them from masks of the picture's size)"
        )


def _as_outputs(predictions: list[Prediction]) -> tuple[QueryOutput, ...]:
    return tuple(QueryOutput(item.class_logits, item.mask_logits, item.iou_logits) for item in predictions)


def _check_pixels(pixel_values: Tensor, pixel_mask: Tensor | None) -> tuple[Tensor, Content]:
    """pixel_values as (B, T, 3, H, W), and where the pictures are."""
    if pixel_values.dim() == 4:
        pixel_values = pixel_values[:, None]
    if pixel_values.dim() != 5 or pixel_values.shape[2] != 3:
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}: expected (B, 3, H, W) or (B, T, 3, H, W)"
        )
    height, width = pixel_values.shape[-2:]
    if height % STRIDE or width % STRIDE or min(height, width) < STRIDE:
        padded = tuple(max(-(-side // STRIDE), 1) * STRIDE for side in (height, width))
        raise ValueError(
            f"pixel_values is {height} x {width}: sides must be multiples of {STRIDE}. "
            f"Pad right and bottom with zeros to {padded[0]} x {padded[1]} and pass pixel_mask (the processor does)"
        )
    if pixel_mask is not None and pixel_mask.shape != (len(pixel_values), height, width):
        raise ValueError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}: expected {(len(pixel_values), height, width)}"
        )
    return pixel_values, Content.from_pixel_mask(pixel_mask, (height, width))


def _check_class_embeds(class_embeds: Tensor | None, text_dim: int) -> None:
    if class_embeds is None:
        return
    if class_embeds.dim() != 3 or class_embeds.shape[-1] != text_dim or 0 in class_embeds.shape:
        raise ValueError(
            f"class_embeds has shape {tuple(class_embeds.shape)}: expected (classes, synonyms, {text_dim}), "
            "all at least 1 (Vocabulary.class_embeds makes them)"
        )
