"""ZeRO of DeepSpeed: moments and gradients shared out over processes, weights whole in each of them.

The engine of DeepSpeed makes clipping and the optimizer's step one. Its AdamW knows one flat vector per group of
parameters: one without a gradient is moved by its momentum and decays, where that of torch would leave it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator
    from torch import Tensor, nn

_LAUNCHER = "recipes/launchers/deepspeed_zero2.yaml"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def settle_zero(accelerator: Accelerator) -> None:
    """Make the configuration of DeepSpeed what the recipe needs. Raises ValueError for what it cannot work with."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    zero = config.get("zero_optimization", {})
    places = [(zero.get(name) or {}).get("device") or "none" for name in ("offload_optimizer", "offload_param")]
    if zero.get("stage") not in (1, 2) or places != ["none", "none"]:
        raise ValueError(
            f"DeepSpeed has zero_stage {zero.get('stage')} and offloads to {', '.join(places)}: here it needs "
            f"zero_stage 1 or 2 and no offload, take {_LAUNCHER} for a start, or share all out with FSDP"
        )
    # Autocast, as elsewhere, instead of weights in bfloat16. The recipe itself knows the parts of a step.
    is_short = config.pop("bf16", {}).get("enabled") is True
    config["torch_autocast"] = {"enabled": is_short, "dtype": "bfloat16"}
    config.update(train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1, gradient_clipping=0.0)


def share_moments(accelerator: Accelerator, answers: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Both prepared for the engine. What moments the optimizer has are taken along."""
    groups = [list(group["params"]) for group in optimizer.param_groups]
    states = [[optimizer.state.pop(parameter, {}) for parameter in group] for group in groups]
    engine, wrapped = accelerator.prepare(answers, optimizer)
    if any(state for group in states for state in group):
        _fill(engine.optimizer.optimizer, groups, states)
    return engine, wrapped


def backward(engine: Any, loss: Tensor, *, is_last: bool) -> None:
    """Gradients of the loss of a part of a step. is_last: `step` comes next."""
    engine.set_gradient_accumulation_boundary(is_boundary=is_last)
    engine.backward(loss)


def step(engine: Any, limit: float) -> Tensor:
    """Clip the gradients and make the step. Returns their norm; infinite: the step was left out."""
    engine.optimizer.clip_grad = limit
    engine.step()
    return torch.as_tensor(engine.get_global_grad_norm())


def gather_moments(optimizer: Any, *, is_kept: bool) -> dict[str, Any]:
    """The state of AdamW over whole parameters. All processes must call it. is_kept: see `whole_moments`."""
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_get_full_optimizer_state

    states: dict[int, dict[str, Tensor]] = {}
    described, index = [], 0
    for group, parameters in zip(optimizer.param_groups, optimizer.bit16_groups, strict=True):
        flat = group["params"][0]
        state = optimizer.optimizer.state.get(flat, {})
        if state:  # DeepSpeed links the moments when only the first group has any
            lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.optimizer.state)
        for place, parameter in enumerate(parameters if state else ()):
            whole = {name: safe_get_full_optimizer_state(parameter, name) for name in _MOMENTS}
            if is_kept:
                states[index + place] = {"step": state["step"], **{name: m.cpu() for name, m in whole.items()}}
        described.append({**group, "params": list(range(index, index + len(parameters)))})
        index += len(parameters)
    return {"state": states, "param_groups": described}


def _fill(
    optimizer: torch.optim.Optimizer, groups: Sequence[list[Any]], states: Sequence[list[dict[str, Tensor]]]
) -> None:
    """Put moments of whole parameters into the flat ones of an optimizer. One number of steps is kept, the highest."""
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

    for described, parameters, known in zip(optimizer.param_groups, groups, states, strict=True):
        flat = described["params"][0]
        done = max((state["step"] for state in known if state), default=torch.tensor(0.0))
        optimizer.state[flat] = {"step": done.cpu(), **{name: torch.zeros_like(flat) for name in _MOMENTS}}
        lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.state)
        for parameter, state in zip(parameters, known, strict=True):
            for name in _MOMENTS if state else ():
                safe_set_full_optimizer_state(parameter, state[name].to(flat.device), name)
