"""Train one model on a mix of tasks and data sets, from scratch or from given weights.

1 CPU process     accelerate launch --cpu recipes/cotrain.py --config recipes/configs/tiny.yaml
1 GPU             accelerate launch --num_processes 1 recipes/cotrain.py --config recipes/configs/default.yaml
N GPUs            accelerate launch --multi_gpu --num_processes N recipes/cotrain.py --config ...
N GPUs, sharded   accelerate launch --config_file recipes/launchers/fsdp2.yaml recipes/cotrain.py --config ...
N CPU processes   ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N recipes/cotrain.py ...

Words after the options change settings: `optimizer.learning_rate=1e-4 sources.0.root=/data/coco`.
`--max-steps 2` tries everything out, `--resume` goes on from the newest checkpoint of the output folder; what one run
would have done, a stopped or killed and resumed one does too. `batch_size` counts the samples of a step, over all
processes; `accumulate` splits what each of them handles, to save memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from tqdm import tqdm

from omg_transformers.data import MixedStream, SampleError, SampleSource, TrainTransform, collate
from omg_transformers.data.mixture import JointSettings, SourceSettings, build_source, build_sources, mix_parts
from omg_transformers.data.stream import WorkerLostError
from omg_transformers.evaluation import EvaluationSettings, PipelineSegmenter, evaluate
from omg_transformers.inference import OMGSegPipeline
from omg_transformers.model import OMGSegModel
from omg_transformers.plugins import load_head
from omg_transformers.processing import OMGSegProcessor
from omg_transformers.settings import settings_to_dict
from omg_transformers.training import checkpoints, launch, results, sharding
from omg_transformers.training.command_line import ending_clearly, parse_recipe, refusing_mistakes
from omg_transformers.training.curves import write_curves
from omg_transformers.training.journal import Clock, Journal, describe_environment, sum_losses, task_losses
from omg_transformers.training.lessons import Teacher
from omg_transformers.training.loss import LossSettings, SegmentationLoss
from omg_transformers.training.optimizer import (
    OptimizerSettings,
    ScheduleSettings,
    build_optimizer,
    set_learning_rate,
    weight_average,
)
from omg_transformers.training.questions import Answers
from omg_transformers.training.start import choose_vocabulary, find_vocabulary, start_model
from omg_transformers.training.trackers import choose_tracker, track


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. mix: share of the batches per task. joint: one label space for all sources.

    alongside: heads that answer every batch too, from the same image features: the weight of their loss.
    classes_for_prompts: teach names also through heads that do not use them. corrections: how often prompts go on.
    vocabulary: folder of a table of names; null: that of start_from, else a fixed random direction per name.
    unknown_names: classes that the vocabulary does not know are an error, void, or get a new random direction.
    start_from: folder of weights to go on from. frozen: beginnings of names of parameters that do not train.
    batch_size: samples per step; accumulate: parts that it is split into. ema_decay: average the weights over steps.
    best: the held-out figure, "task/figure", that tells which weights are best; "mean": each entry's first figure.
    tracker: of accelerate; auto: TensorBoard if installed. timeout: seconds that processes wait for one another.
    """

    output: Path
    mix: dict[str, float]
    sources: list[SourceSettings]
    model: dict[str, Any]
    max_steps: int
    joint: JointSettings | None = None
    alongside: dict[str, float] = field(default_factory=dict)
    classes_for_prompts: bool = False
    corrections: float = 0.0
    vocabulary: Path | None = None
    unknown_names: Literal["error", "void", "new"] = "error"
    start_from: Path | None = None
    backbone_weights: str | None = None
    frozen: list[str] = field(default_factory=list)
    batch_size: int = 8
    accumulate: int = 1
    transform: TrainTransform = field(default_factory=TrainTransform)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    ema_decay: float | None = None
    seed: int = 0
    num_workers: int = 0
    mixed_precision: Literal["no", "bf16"] = "no"
    channels_last: bool = False
    half_size_weights: bool = False
    log_every: int = 1
    save_every: int = 500
    evaluate_every: int = 0
    keep: int = 2
    evaluation: list[EvaluationSettings] = field(default_factory=list)
    best: str = "mean"
    tracker: str | None = "auto"
    timeout: float = 600.0


@dataclass
class Run:
    """What the loop works with. step: how many are done. average: of the weights. best: highest chosen figure."""

    settings: Settings
    accelerator: Accelerator
    stream: MixedStream
    held_out: list[SampleSource]
    model: OMGSegModel
    average: Any
    answers: Any
    optimizer: Any
    teacher: Teacher
    processor: OMGSegProcessor
    journal: Journal
    step: int
    best: float | None


def main() -> None:
    """Settings, preparation, loop, result. Mistakes in the settings end the run before any work is done."""
    with refusing_mistakes():
        settings, is_resumed = parse_recipe(Settings, __doc__ or "")
        run = prepare(settings, is_resumed)
    with ending_clearly(run, save, SampleError, WorkerLostError):
        train(run)
        with sharding.whole_weights(run.model, run.answers):
            if run.step < settings.max_steps:
                run.accelerator.print(f"stopped at step {run.step} and saved: the same command with --resume goes on")
            elif run.accelerator.is_main_process:
                write_curves(settings.output)
                with checkpoints.written_whole(settings.output / "model") as folder:
                    export(run, folder)
                print(f"the trained model is in {settings.output / 'model'}")
    run.accelerator.end_training()


def prepare(settings: Settings, is_resumed: bool) -> Run:
    """Accelerator, data, model, heads, optimizer; then what a checkpoint knows."""
    tracker = choose_tracker(settings.tracker)
    accelerator = launch.start_accelerator(settings.output, settings.mixed_precision, tracker, settings.timeout)
    per_pass = launch.check_processes(accelerator.num_processes, settings.batch_size, settings.accumulate)
    newest = launch.find_start(settings.output, is_resumed)

    table = find_vocabulary(settings.vocabulary, settings.start_from)
    is_known = None if table is None or settings.unknown_names == "new" else table.knows
    sources, merged = build_sources(settings.sources, settings.joint, is_known, unknown=settings.unknown_names)
    held_out = [build_source(each.source, is_known, unknown=settings.unknown_names) for each in settings.evaluation]
    for entry, source in zip(settings.evaluation, held_out, strict=True):
        launch.check_held_out(entry.task, entry.prompts, source)
    launch.check_best(settings.best, [entry.task for entry in settings.evaluation])
    named = list(zip(settings.sources, sources, strict=True))
    launch.check_shares(settings.mix, [(entry.weight, source.tasks) for entry, source in named])
    mix = {task: share for task, share in settings.mix.items() if share}
    parts = mix_parts(mix, named, settings.transform)
    stream = MixedStream(
        parts,
        batch_size=per_pass,
        collate=functools.partial(collate, mean=settings.mean, std=settings.std, size=settings.transform.size),
        seed=settings.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=settings.num_workers,
        accumulate=settings.accumulate,
    )

    torch.manual_seed(settings.seed)
    spaces = [source.label_space for source in (*sources, *held_out)]
    start = start_model(
        spaces[: len(sources)],
        default_task=next(iter(mix)),
        options=settings.model,
        start_from=settings.start_from,
        backbone_weights=settings.backbone_weights,
        frozen=settings.frozen,
    )
    model = start.model.to(memory_format=torch.channels_last) if settings.channels_last else start.model
    average = None if settings.ema_decay is None else weight_average(model, settings.ema_decay).to(accelerator.device)
    optimizer = build_optimizer(model, settings.optimizer)
    vocabulary = choose_vocabulary(table, spaces, model.config.text_dim, is_extended=settings.unknown_names == "new")
    progress = checkpoints.Progress(0, {})
    if newest is not None:
        progress = checkpoints.load_checkpoint(newest, model=model, optimizer=optimizer, average=average)
        stream.load_state_dict(progress.state["stream"])
    launch.check_output(settings.output, model, keep=settings.keep, with_average=average is not None)

    tasks = {part.name: (part.task, *(t for t in settings.alongside if t in part.source.tasks)) for part in parts}
    model, answers, optimizer = sharding.share_out(accelerator, Answers(model), optimizer)
    teacher = Teacher(
        accelerator,
        answers,
        SegmentationLoss(settings.loss),
        vocabulary,
        {name: load_head(name) for names in tasks.values() for name in names},
        tasks,
        alongside=settings.alongside,
        with_classes=settings.classes_for_prompts,
        correction_share=settings.corrections,
        seed=settings.seed,
    )
    processor = results.make_processor(model, vocabulary, settings.transform.size, settings.mean, settings.std)
    record = {"settings": settings_to_dict(settings), "start": (*merged, *start.report)}
    record["environment"] = describe_environment(Path(__file__).parent) | launch.describe_processes(accelerator)
    journal = Journal(settings.output, record, from_step=progress.step, is_silent=not accelerator.is_main_process)
    accelerator.print("\n".join((*merged, *start.report, *journal.changes)))
    loop = (model, average, answers, optimizer, teacher, processor, journal, progress.step, progress.state.get("best"))
    return Run(settings, accelerator, stream, held_out, *loop)


def train(run: Run) -> None:
    """The loop. It ends before `max_steps` after SIGTERM or Ctrl-C."""
    settings, accelerator, journal = run.settings, run.accelerator, run.journal
    accelerator.init_trackers(settings.output.name)
    bar = tqdm(initial=run.step, total=settings.max_steps, disable=not accelerator.is_main_process, unit="step")
    guard, clock, batches = launch.GradientGuard(), Clock(), iter(run.stream)
    limit, latest, is_last = settings.optimizer.max_grad_norm or float("inf"), dict[str, str](), False
    run.answers.train()
    with bar, launch.StopSignal() as stop:
        while run.step < settings.max_steps and not is_last:
            rate = set_learning_rate(run.optimizer, settings.schedule.factor(run.step, settings.max_steps))
            with clock.waiting():
                parts = [next(batches) for _ in range(settings.accumulate)]
            with launch.memory_advice(run.stream.batch_size, settings.accumulate, settings.transform.size):
                lessons, losses = run.teacher.prepare(parts, run.step), []
                for lesson in lessons:
                    losses.append(run.teacher.losses(lesson))
                    sharding.backward(accelerator, run.answers, losses[-1]["loss"], is_last=lesson is lessons[-1])
            norm = sharding.clip_gradients(accelerator, run.answers, limit)
            if guard.is_good(norm, run.step + 1, lessons):
                run.optimizer.step()
                sharding.update_average(run.average, run.model, run.answers)
            run.optimizer.zero_grad()

            run.step += 1
            metrics = {"part": parts[0]["part"], **sum_losses(losses), "grad_norm": norm.item(), "learning_rate": rate}
            timing = clock.lap(settings.batch_size)
            journal.add_step(run.step, {**metrics, **guard.report()}, timing)
            track(accelerator, run.step, {**metrics, **timing})
            latest |= task_losses(metrics)
            bar.set_postfix(latest, refresh=False)
            bar.update()
            is_done = run.step == settings.max_steps
            is_last = stop.is_set(accelerator.device) or is_done
            if settings.evaluate_every and (is_done or run.step % settings.evaluate_every == 0):
                with sharding.whole_weights(run.model, run.answers):
                    evaluate_all(run)
            if is_last or run.step % settings.save_every == 0:
                save(run)
            elif run.step % settings.log_every == 0:
                journal.flush()
            clock.restart()
    accelerator.print(clock.summary())


def save(run: Run) -> None:
    """A checkpoint of the whole run, and all lines up to it, by the main process."""
    moments = sharding.whole_moments(run.optimizer.optimizer, is_kept=run.accelerator.is_main_process)
    with sharding.whole_weights(run.model, run.answers):
        if run.accelerator.is_main_process:
            run.journal.flush()
            state = {"stream": run.stream.state_dict(run.step), "best": run.best}
            folder, progress = run.settings.output / "checkpoints", checkpoints.Progress(run.step, state)
            checkpoints.save_checkpoint(
                folder, progress, model=run.model, optimizer=moments, average=run.average, keep=run.settings.keep
            )


def evaluate_all(run: Run) -> None:
    """The figures of every entry of `evaluation`; each process answers its share. The best weights are kept."""
    model, lines = run.model if run.average is None else run.average.module, []
    segmenter = PipelineSegmenter(OMGSegPipeline(model=model, processor=run.processor, device=run.accelerator.device))
    for entry, source in zip(run.settings.evaluation, run.held_out, strict=True):
        title, limit, head = entry.source.title, entry.num_samples, load_head(entry.task)
        found = evaluate(segmenter, head, source, limit=limit, prompts=entry.prompts).figures
        figures = {f"{entry.task}/{name}": round(float(value), 5) for name, value in found.items()}
        run.journal.add_evaluation(run.step, {"held_out": title, **figures})
        track(run.accelerator, run.step, {f"{name}@{title}": value for name, value in figures.items()})
        run.accelerator.print(f"step {run.step}, {title}: {results.first_figures(figures)}")
        lines.append(figures)
    figure = results.chosen_figure(lines, run.settings.best)
    if lines and (run.best is None or figure > run.best):
        run.best = figure
        if run.accelerator.is_main_process:
            checkpoints.keep_best(run.settings.output / "best", run.step, figure, functools.partial(export, run))


def export(run: Run, folder: Path) -> None:
    """Model, processor and vocabulary, for `from_pretrained`."""
    model = run.model if run.average is None else run.average.module
    results.export_model(folder, model, run.processor, half_size=run.settings.half_size_weights)


if __name__ == "__main__":
    main()
