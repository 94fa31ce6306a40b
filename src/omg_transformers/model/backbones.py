"""Adapters that turn any trunk into four feature maps of stride 4, 8, 16 and 32."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from omg_transformers.model.padding import Content

if TYPE_CHECKING:
    from omg_transformers.model.configuration import OMGSegConfig

STRIDES = (4, 8, 16, 32)
# Trunks made of convolutions, poolings and norms of single cells: with padding kept at zero, padding changes nothing
# (tests/unit/test_padding.py). Attention, windows, squeeze-and-excitation and group norms would let it through.
_SAFE_TIMM = re.compile(r"convnext(v2)?_|(tf_)?efficientnet_lite\d|resnet\d+[dt]?$|mobilenetv2_\d|regnetx_\d")
_SAFE_TRANSFORMERS = ("convnext", "convnextv2", "dinov3_convnext", "resnet")


class Backbone(nn.Module):
    """Four raw feature maps of a trunk, padding kept out of the picture.

    channels: widths of the maps, finest first. pads_safely: with a pixel mask, padding changes no feature.
    """

    channels: tuple[int, ...]
    has_clip_head = False

    def __init__(self) -> None:
        super().__init__()
        self._content: Content | None = None

    def _guard_padding(self, is_safe: bool) -> None:
        """Call last in a constructor: what reads neighbouring or all cells gets zeros where the padding is."""
        self.pads_safely = is_safe
        if not is_safe:
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                if module.kernel_size not in (1, (1, 1)):
                    module.register_forward_pre_hook(self._zero_padding)
            elif type(module).__name__ in ("GlobalResponseNorm", "ConvNextV2GRN"):
                is_channels_last = getattr(module, "spatial_dim", (1, 2)) == (1, 2)
                module.register_forward_pre_hook(
                    self._zero_padding_channels_last if is_channels_last else self._zero_padding
                )

    def _zero_padding(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._content is None or self._content.sizes is None:
            return None
        return (self._content.zero_padding(arguments[0]), *arguments[1:])

    def _zero_padding_channels_last(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._content is None or self._content.sizes is None:
            return None
        return (self._content.zero_padding(arguments[0].movedim(-1, 1)).movedim(1, -1), *arguments[1:])

    @abstractmethod
    def _maps(self, pixel_values: Tensor) -> list[Tensor]:
        """The four maps of the trunk."""

    def forward(self, pixel_values: Tensor, content: Content) -> list[Tensor]:
        """pixel_values: (N, 3, H, W), H and W multiples of 32. Returns (N, C_i, H / s, W / s), s = 4, 8, 16, 32."""
        self._content = content
        maps = self._maps(content.zero_padding(pixel_values))
        self._content = None
        sizes = [(features.shape[-2], features.shape[-1]) for features in maps]
        expected = [(pixel_values.shape[-2] // s, pixel_values.shape[-1] // s) for s in STRIDES]
        if sizes != expected:
            raise ValueError(
                f"the backbone gives maps of sizes {sizes}, expected {expected} (strides 4, 8, 16, 32): "
                "choose a hierarchical backbone (ConvNeXt, ResNet, EfficientNet, Swin ...)"
            )
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """Batch statistics stay as they were learned: batches here are small and mixed."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class OpenClipBackbone(Backbone):
    """ConvNeXt trunk of an open_clip visual tower, with its CLIP head for pooled features.

    Built from the architecture alone; weights come from a checkpoint. Source: open_clip `timm_model.py`.
    """

    has_clip_head = True

    def __init__(self, name: str, options: dict[str, Any], text_dim: int) -> None:
        super().__init__()
        import open_clip
        import timm

        known = open_clip.get_model_config(name)
        if known is None or "timm_model_name" not in known.get("vision_cfg", {}):
            convnext = [model for model in open_clip.list_models() if model.startswith("convnext")]
            raise ValueError(
                f"backbone_name is {name!r}: expected an open_clip model with a ConvNeXt trunk, "
                f"one of {', '.join(convnext)}"
            )
        trunk = timm.create_model(known["vision_cfg"]["timm_model_name"], pretrained=False, num_classes=0, **options)
        if not hasattr(trunk, "stages"):
            raise ValueError(f"backbone_name is {name!r}: its trunk has no stages, choose a ConvNeXt model")
        self.stem, self.stages = trunk.stem, trunk.stages
        self.channels = tuple(info["num_chs"] for info in trunk.feature_info)
        width = self.channels[-1]
        self.head_norm = nn.LayerNorm(width, eps=1e-6)
        self.head_fc1 = nn.Linear(width, 2 * text_dim)
        self.head_fc2 = nn.Linear(2 * text_dim, text_dim, bias=False)
        self._guard_padding(is_safe=True)

    def _maps(self, pixel_values: Tensor) -> list[Tensor]:
        features, maps = self.stem(pixel_values), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps

    def embed_pooled(self, pooled: Tensor) -> Tensor:
        """pooled: (..., C) averages of the last map. Returns (..., text_dim) in CLIP's joint space, not normalised."""
        return self.head_fc2(F.gelu(self.head_fc1(self.head_norm(pooled))))


class TimmBackbone(Backbone):
    """Any hierarchical timm model."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            near = timm.list_models(f"{name.split('_')[0]}*")[:8]
            raise ValueError(
                f"backbone_name is {name!r}, which timm does not know"
                + (f": did you mean one of {', '.join(near)}?" if near else ": see timm.list_models()")
            )
        trunk = timm.create_model(name, pretrained=False, features_only=True, **options)
        levels = {info["reduction"]: index for index, info in enumerate(trunk.feature_info.info)}
        if not set(STRIDES) <= levels.keys():
            raise ValueError(
                f"backbone_name is {name!r}, with maps of strides {sorted(levels)}: expected 4, 8, 16 and 32, "
                "choose a hierarchical model"
            )
        self.trunk = trunk
        self._levels = [levels[stride] for stride in STRIDES]
        self.channels = tuple(trunk.feature_info.info[level]["num_chs"] for level in self._levels)
        self._guard_padding(is_safe=_SAFE_TIMM.match(name.split(".")[0]) is not None)

    def _maps(self, pixel_values: Tensor) -> list[Tensor]:
        maps = self.trunk(pixel_values)
        return [self._channels_first(maps[level], index) for index, level in enumerate(self._levels)]

    def _channels_first(self, features: Tensor, index: int) -> Tensor:
        if features.shape[1] != self.channels[index] and features.shape[-1] == self.channels[index]:
            return features.permute(0, 3, 1, 2).contiguous()  # timm's Swin keeps channels last
        return features


class AutoBackboneAdapter(Backbone):
    """Any hierarchical backbone of transformers, built from its configuration."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        from transformers import AutoBackbone, AutoConfig

        options = dict(options)
        model_type = options.pop("model_type", None)
        if model_type is None:
            raise ValueError(
                'backbone_options has no "model_type": expected the configuration of an AutoBackbone model'
            )
        config = AutoConfig.for_model(model_type, **options)
        stages = list(config.stage_names)
        config.out_features = stages[-4:]
        self.trunk = AutoBackbone.from_config(config)
        self.channels = tuple(self.trunk.channels)
        self._guard_padding(is_safe=model_type in _SAFE_TRANSFORMERS)

    def _maps(self, pixel_values: Tensor) -> list[Tensor]:
        return list(self.trunk(pixel_values).feature_maps)


def build_backbone(config: OMGSegConfig) -> Backbone:
    """The trunk that `config` names, with random weights."""
    options = dict(config.backbone_options or {})
    if config.backbone_kind == "open_clip":
        return OpenClipBackbone(str(config.backbone_name), options, config.text_dim)
    if config.backbone_kind == "timm":
        return TimmBackbone(str(config.backbone_name), options)
    return AutoBackboneAdapter(options)


def freeze(module: nn.Module) -> None:
    """No gradient, and no dropout or batch statistics either."""
    module.requires_grad_(False)
    module.eval()
