"""Weights, gradients and moments shared out over processes (FSDP2, ZeRO), for runs that do what others do.

All processes must call what is here, at the same places. Without sharding it does what accelerate does.
"""

from __future__ import annotations

import copy
import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch import distributed
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from omg_transformers.structures import QueryOutput
from omg_transformers.training import zero

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from omg_transformers.model import OMGSegModel
    from omg_transformers.training.questions import Answers

_LAUNCHER = "recipes/launchers/fsdp2.yaml"


def settle_sharding(accelerator: Accelerator) -> None:
    """Make FSDP and DeepSpeed what is needed here. Raises ValueError for what would hang, or train something else."""
    is_asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if is_asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate turns FSDP on for GPUs alone and would train without it; torch does it with gloo as well.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero.settle_zero(accelerator)
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    needed = {
        "fsdp_version: 2": plugin.fsdp_version == 2,
        # Layers that gather their own weights wait for all processes, which ask different numbers of questions.
        "fsdp_auto_wrap_policy: NO_WRAP": plugin.auto_wrap_policy is None,
        # Every process draws or loads the same weights, and averages them: none may be empty.
        "fsdp_cpu_ram_efficient_loading: false": not plugin.cpu_ram_efficient_loading,
        "fsdp_offload_params: false": not isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_activation_checkpointing: false": not plugin.activation_checkpointing,
    }
    missing = [words for words, is_met in needed.items() if not is_met]
    if missing:
        raise ValueError(f"FSDP needs {', '.join(missing)} here: take {_LAUNCHER} for a start")
    # Autocast, as without sharding, instead of weights in bfloat16: what is gathered has full precision.
    plugin.mixed_precision_policy = None


def saves_together(accelerator: Accelerator) -> bool:
    """Whether a checkpoint needs all processes: each has only a share of what it holds."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def share_out(
    accelerator: Accelerator, answers: Answers, optimizer: torch.optim.Optimizer
) -> tuple[OMGSegModel, Any, Any]:
    """A model whose weights are whole in `whole_weights`, and both arguments prepared for the processes of the run.

    Moments that a checkpoint has brought go where their weights go.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return answers.model, *zero.share_moments(accelerator, answers, optimizer)
    if accelerator.distributed_type != DistributedType.FSDP:
        return answers.model, *accelerator.prepare(answers, optimizer)
    model = copy.deepcopy(answers.model)
    torch.export.register_dataclass(QueryOutput)  # older versions of torch overlook the tensors in it
    states = [optimizer.state.pop(parameter, {}) for parameter in _parameters(optimizer)]
    shared, optimizer = accelerator.prepare(answers, optimizer)
    for parameter, state in zip(_parameters(optimizer), states, strict=True):
        for name, value in state.items():
            if name != "step":
                mesh, places = parameter.device_mesh, parameter.placements
                value = distribute_tensor(value.to(parameter.device), mesh, places, src_data_rank=None)
            optimizer.state[parameter][name] = value
    return model, shared, optimizer


def backward(accelerator: Accelerator, answers: nn.Module, loss: Tensor, *, is_last: bool) -> None:
    """Gradients of the loss of a part of a step, averaged over processes: each may have used other parameters.

    is_last: of the step's parts. Where something is shared out, all gradients are sent at once, so all processes must
    have them for the same parameters: for one that only others have used, a process adds zeros. One that nobody has
    used gets none, as without sharding.
    """
    is_zero = accelerator.distributed_type == DistributedType.DEEPSPEED
    if is_zero or isinstance(answers, FSDPModule):
        parameters = [parameter for parameter in answers.parameters() if parameter.requires_grad]
        used = _leaves(loss)
        own = torch.tensor([parameter in used for parameter in parameters], dtype=torch.int32, device=loss.device)
        anywhere = own.clone()
        distributed.all_reduce(anywhere, distributed.ReduceOp.MAX)
        for index in (anywhere > own).nonzero().flatten().tolist():
            loss = loss + 0.0 * parameters[index].sum()
    if is_zero:
        zero.backward(answers, loss, is_last=is_last)
    else:
        accelerator.backward(loss)


def clip_gradients(accelerator: Accelerator, answers: nn.Module, limit: float) -> Tensor:
    """Scale the gradients so that their norm is at most `limit`. Returns what it was. DeepSpeed makes the step too."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return zero.step(answers, limit)
    norm: Tensor = accelerator.clip_grad_norm_(answers.parameters(), limit)
    return _whole(norm)


def update_average(average: AveragedModel | None, model: nn.Module, answers: nn.Module) -> None:
    """Let an average of weights, whole in every process, follow the model inside `answers`. None: there is none."""
    if average is not None:
        with _gathered(answers) as gathered:
            average.update_parameters(gathered or model)


@contextmanager
def whole_weights(model: nn.Module, answers: nn.Module) -> Iterator[None]:
    """In this block `model`, of `share_out`, has the weights of `answers` in every process, to read, save and ask."""
    with _gathered(answers) as gathered, torch.no_grad():
        if gathered is not None:
            for whole, part in zip(_tensors(model), _tensors(gathered), strict=True):
                whole.copy_(part)
    yield
    if gathered is not None:
        model.cpu()  # an evaluation has moved it


@contextmanager
def _gathered(answers: Any) -> Iterator[Any]:
    """The model inside `answers` with gathered weights, until its state_dict() is asked; None: they always are."""
    if not isinstance(answers, FSDPModule):
        yield None
        return
    answers.unshard()
    try:
        yield cast("Answers", answers).model
    finally:
        answers.reshard()


def whole_moments(optimizer: torch.optim.Optimizer, *, is_kept: bool) -> dict[str, Any]:
    """The state of the optimizer as if nothing was shared out. is_kept: False gives no moments and takes no memory."""
    if hasattr(optimizer, "bit16_groups"):  # of DeepSpeed
        return zero.gather_moments(optimizer, is_kept=is_kept)
    content = optimizer.state_dict()
    states = {}
    for index, state in content["state"].items():
        whole = {name: _whole(value) for name, value in state.items()}
        if is_kept:
            states[index] = {name: value.cpu() for name, value in whole.items()}
    return {**content, "state": states}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _leaves(loss: Tensor) -> set[Any]:
    """The parameters that a loss depends on."""
    found, seen, waiting = set[Any](), set[Any](), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found
