"""What runs refuse and do about weights and moments that are shared out; what they do then is tested with recipes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import save_file
from torch import nn

from omg_transformers.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from omg_transformers.training.command_line import ending_clearly
from omg_transformers.training.launch import OutOfMemoryError
from omg_transformers.training.sharding import settle_sharding, update_average, whole_moments, whole_weights

LAUNCHERS = Path(__file__).resolve().parents[2] / "recipes" / "launchers"


class Small(nn.Linear):
    def save_pretrained(self, folder):
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


def with_fsdp(**options):
    good = {
        "fsdp_version": 2,
        "auto_wrap_policy": None,
        "cpu_ram_efficient_loading": False,
        "cpu_offload": None,
        "activation_checkpointing": False,
        "mixed_precision_policy": "bf16",
    }
    plugin = SimpleNamespace(**{**good, **options})
    return SimpleNamespace(distributed_type=DistributedType.FSDP, state=SimpleNamespace(fsdp_plugin=plugin))


def with_zero(config):
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))
    return SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, state=state)


def test_every_launcher_is_read_by_accelerate_and_says_how_it_is_used():
    files = sorted(LAUNCHERS.glob("*.yaml"))
    found = {file.stem: load_config_from_file(str(file)) for file in files}
    kinds = {name: config.distributed_type for name, config in found.items()}
    assert kinds == {
        "ddp": DistributedType.MULTI_GPU,
        "deepspeed_zero2": DistributedType.DEEPSPEED,
        "fsdp2": DistributedType.FSDP,
    }
    assert len(files) == 3
    for file in files:
        words = f"# accelerate launch --config_file recipes/launchers/{file.name} "
        assert file.read_text().startswith(words)
        assert "ot run on GPUs" in file.read_text()


def test_fsdp_that_would_hang_or_train_something_else_is_refused():
    with pytest.raises(ValueError, match="needs fsdp_version: 2, fsdp_auto_wrap_policy: NO_WRAP here: take recipes/"):
        settle_sharding(with_fsdp(fsdp_version=1, auto_wrap_policy=len))
    with pytest.raises(ValueError, match="fsdp_cpu_ram_efficient_loading: false"):
        settle_sharding(with_fsdp(cpu_ram_efficient_loading=True))
    with pytest.raises(ValueError, match="fsdp_activation_checkpointing: false"):
        settle_sharding(with_fsdp(activation_checkpointing=True))


def test_with_fsdp_weights_keep_their_precision():
    accelerator = with_fsdp()
    settle_sharding(accelerator)
    assert accelerator.state.fsdp_plugin.mixed_precision_policy is None


@pytest.mark.parametrize(
    ("zero", "message"),
    [
        ({"stage": 3}, "zero_stage 3"),
        ({"stage": 2, "offload_optimizer": {"device": "cpu"}}, "offloads to cpu, none"),
    ],
)
def test_zero_that_shares_weights_out_or_offloads_is_refused(zero, message):
    with pytest.raises(ValueError, match=message):
        settle_sharding(with_zero({"zero_optimization": zero}))


def test_with_zero_weights_keep_their_precision_and_the_recipe_counts_the_parts_of_a_step():
    config = {
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}},
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": "auto",
    }
    settle_sharding(with_zero(config))
    assert "bf16" not in config
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert config["gradient_accumulation_steps"] == 1


def test_a_process_saves_nothing_alone_when_others_hold_a_share():
    run, saved = SimpleNamespace(step=7, accelerator=with_fsdp()), []
    with pytest.raises(SystemExit, match="after step 7, --resume goes on"), ending_clearly(run, saved.append):
        raise OutOfMemoryError("memory ran out")
    with pytest.raises(LookupError), ending_clearly(run, saved.append):
        raise LookupError("a surprise")
    assert saved == []


def test_without_sharding_everything_is_whole_already(tmp_path):
    model = Small(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = model.weight
    with whole_weights(model, SimpleNamespace(model=model)):
        assert model.weight is before
    update_average(None, model, model)
    moments = whole_moments(optimizer, is_kept=True)
    path = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=moments)
    fresh = torch.optim.AdamW(model.parameters())
    load_checkpoint(path, model=model, optimizer=fresh)
    for parameter in model.parameters():
        assert torch.equal(fresh.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])
    assert whole_moments(optimizer, is_kept=False)["state"] == {}
