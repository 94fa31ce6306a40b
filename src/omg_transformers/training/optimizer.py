"""AdamW with the groups a segmentation model needs, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW; the defaults are those of OMG-Seg for a total batch of 16.

    backbone_factor: learning rate of the backbone relative to the rest. max_grad_norm: L2 clipping, null for none.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    backbone_factor: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float | None = 0.01

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm is {self.max_grad_norm}: it must be above 0, or null for no clipping")


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """The learning rate over steps: linear warm-up, then "constant", "cosine" or "multistep".

    milestones: shares of all steps, in (0, 1), where "multistep" multiplies by `gamma` (OMG-Seg: 8 and 11 of 12).
    final_factor: what "cosine" ends at, relative to the full rate.
    """

    kind: Literal["constant", "cosine", "multistep"] = "multistep"
    warmup_steps: int = 500
    warmup_factor: float = 0.001
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    gamma: float = 0.1
    final_factor: float = 0.01

    def __post_init__(self) -> None:
        if any(not 0.0 < milestone < 1.0 for milestone in self.milestones):
            raise ValueError(f"milestones are {self.milestones}: give shares of all steps, between 0 and 1")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}: it cannot be negative")

    def factor(self, step: int, max_steps: int) -> float:
        """What the full learning rate is multiplied with at `step`, which counts from 0."""
        if step < self.warmup_steps:
            return self.warmup_factor + (1.0 - self.warmup_factor) * step / self.warmup_steps
        if self.kind == "multistep":
            passed: int = sum(step >= milestone * max_steps for milestone in self.milestones)
            return float(self.gamma**passed)
        if self.kind == "cosine":
            share = (step - self.warmup_steps) / max(max_steps - self.warmup_steps, 1)
            wave = 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
            return self.final_factor + (1.0 - self.final_factor) * wave
        return 1.0


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over all parameters that train, in up to four groups: with or without decay, backbone or not.

    Norms, biases, layer scales and embeddings (queries, levels, prompt types) are not decayed.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, owner, parameter in _trainable(model):
        is_backbone = "backbone" in name.split(".")
        groups.setdefault((is_backbone, _is_decayed(name, owner, parameter)), []).append(parameter)
    if not groups:
        raise ValueError("no parameter of the model trains: unfreeze some before building the optimizer")
    described: list[dict[str, Any]] = []
    for (is_backbone, is_decayed), parameters in sorted(groups.items(), key=lambda item: item[0]):
        rate = settings.learning_rate * (settings.backbone_factor if is_backbone else 1.0)
        decay = settings.weight_decay if is_decayed else 0.0
        described.append({"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(described, betas=settings.betas, eps=settings.eps)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Every group's own rate times `factor`. Returns the highest."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """A running average of the model's weights, in its attribute `module`; `update_parameters(model)` after each step.

    The first update copies the weights, later ones keep a share `decay` of the average. Buffers are copied.
    """
    if not 0.0 < decay < 1.0:
        raise ValueError(f"ema_decay is {decay}: expected a share between 0 and 1, such as 0.999, or null for none")
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, module, parameter


def _is_decayed(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
    is_matrix = parameter.ndim >= 2 and name.rpartition(".")[2].endswith("weight")
    return is_matrix and not isinstance(owner, nn.Embedding)
