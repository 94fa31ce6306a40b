"""Train one model on a mix of tasks and data sets, from scratch or from given weights.

1 CPU process     accelerate launch --cpu recipes/cotrain.py --config recipes/configs/tiny.yaml
1 GPU             accelerate launch --num_processes 1 recipes/cotrain.py --config recipes/configs/default.yaml
N GPUs            accelerate launch --multi_gpu --num_processes N recipes/cotrain.py --config ...
N CPU processes   ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N recipes/cotrain.py ...

Words after the options change settings: `optimizer.learning_rate=1e-4 sources.0.root=/data/coco`.
`--max-steps 2` tries everything out, `--resume` goes on from the newest checkpoint of the output folder; what one run
would have done, a stopped and resumed one does too. `batch_size` counts the samples of all processes together.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from tqdm import tqdm

from omg_transformers.data import (
    ComposedScenes,
    EvalTransform,
    MappedSource,
    MixedStream,
    MixPart,
    ProceduralScenes,
    SampleSource,
    TrainTransform,
    collate,
    read_coco_panoptic,
)
from omg_transformers.evaluation import evaluate
from omg_transformers.labels import LabelClass, LabelSpace, Vocabulary, builtin_label_space
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.plugins import load_head
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.settings import SettingsError, load_settings, settings_to_dict
from omg_transformers.training.checkpoints import Progress, load_checkpoint, newest_checkpoint, save_checkpoint
from omg_transformers.training.journal import Journal, describe_environment
from omg_transformers.training.loss import SegmentationLoss
from omg_transformers.training.loss_settings import LossSettings
from omg_transformers.training.optimizer import OptimizerSettings, ScheduleSettings, build_optimizer, set_learning_rate
from omg_transformers.training.pretrained import efficientnet_lite0_weights, load_trunk, random_vocabulary
from omg_transformers.training.questions import Answers, make_question, move_question

MAX_BAD_STEPS = 5


@dataclass(frozen=True)
class SourceSettings:
    """Where samples come from. tasks: default all of the mix. options: of the reader; compose: of ComposedScenes."""

    kind: Literal["coco_panoptic", "scenes"]
    name: str = ""
    weight: float = 1.0
    tasks: list[str] | None = None
    root: Path | None = None
    label_space: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    compose: dict[str, Any] | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """One figure on held-out samples: the first `num_samples` of a source, at `shortest_side`."""

    task: str
    source: SourceSettings
    num_samples: int = 20
    shortest_side: int | None = None
    longest_side: int | None = None


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. mix: share of the batches per task.

    alongside: heads that answer every batch too, from the same image features: weight of their loss.
    unknown_names: what becomes of classes that the vocabulary has no vector for.
    classes_for_prompts: teach names also through heads that do not use them.
    """

    output: Path
    mix: dict[str, float]
    sources: list[SourceSettings]
    model: dict[str, Any]
    max_steps: int
    alongside: dict[str, float] = field(default_factory=dict)
    start_from: Path | None = None
    backbone_weights: Literal["efficientnet_lite0"] | None = None
    vocabulary: Path | None = None
    unknown_names: Literal["error", "void"] = "error"
    classes_for_prompts: bool = False
    batch_size: int = 8
    transform: TrainTransform = TrainTransform()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    seed: int = 0
    num_workers: int = 0
    mixed_precision: Literal["no", "bf16"] = "no"
    channels_last: bool = False
    log_every: int = 10
    save_every: int = 500
    evaluate_every: int = 0
    keep: int = 2
    evaluation: list[EvaluationSettings] = field(default_factory=list)


def main() -> None:
    """Settings, accelerator, data, model, optimizer, resume, loop, evaluation, save."""
    settings, is_resumed = parse_arguments()
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        # A batch asks only some of the queries, so some parameters have no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    rank, world_size = accelerator.process_index, accelerator.num_processes
    check_processes(world_size, settings.batch_size)
    newest = find_start(settings.output, is_resumed)

    # Data: every task of the mix on every source that can serve it.
    vocabulary = None if settings.vocabulary is None else Vocabulary.load(settings.vocabulary)
    build = functools.partial(build_source, vocabulary=vocabulary, unknown_names=settings.unknown_names)
    sources = [build(source) for source in settings.sources]
    parts = mix_parts(settings, sources)
    tasks = {part.name: (part.task, *(t for t in settings.alongside if t in part.source.tasks)) for part in parts}
    heads = {task: load_head(task) for task in sorted({task for names in tasks.values() for task in names})}
    make_batch = functools.partial(collate, mean=settings.mean, std=settings.std)
    stream = MixedStream(
        parts,
        batch_size=settings.batch_size // world_size,
        collate=functools.partial(make_batch, size=settings.transform.size),
        seed=settings.seed,
        rank=rank,
        world_size=world_size,
        num_workers=settings.num_workers,
    )
    held_out = [build(part.source) for part in settings.evaluation]
    label_spaces = {source.label_space.name: source.label_space for source in sources}

    # Model: the seed decides its first weights, whatever ran before.
    torch.manual_seed(settings.seed)
    model = build_model(settings, label_spaces)
    if vocabulary is None:
        spaces = [source.label_space for source in (*sources, *held_out)]
        vocabulary = random_vocabulary(spaces, model.config.text_dim)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, settings.optimizer)
    criterion = SegmentationLoss(settings.loss)
    progress = Progress(0, {})
    if newest is not None:
        progress = load_checkpoint(newest, model=model, optimizer=optimizer)
        stream.load_state_dict(progress.state["stream"])
    answers, optimizer = accelerator.prepare(Answers(model), optimizer)

    def save(step: int) -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state = Progress(step, {"stream": stream.state_dict()})
            save_checkpoint(
                settings.output / "checkpoints", state, model=model, optimizer=optimizer.optimizer, keep=settings.keep
            )
        accelerator.wait_for_everyone()

    def measure(step: int) -> None:
        for part, source in zip(settings.evaluation, held_out, strict=True):
            transform = EvalTransform(shortest_side=part.shortest_side, longest_side=part.longest_side)
            scores = evaluate(
                model,
                load_head(part.task),
                (transform(source.sample(index)) for index in range(rank, part.num_samples, world_size)),
                class_embeds=vocabulary.class_embeds(source.label_space),
                collate=functools.partial(make_batch, task=part.task),
                num_classes=len(source.label_space.classes),
            )
            if accelerator.is_main_process:
                figures = {f"{part.task}/{name}": value for name, value in scores.items()}
                journal.write(step, held_out=part.source.name or part.source.kind, **figures)
                bar.write(f"step {step} {part.source.name}: " + str({k: round(v, 4) for k, v in figures.items()}))

    if accelerator.is_main_process:
        settings.output.mkdir(parents=True, exist_ok=True)
        resolved = {"settings": settings_to_dict(settings), "environment": describe_environment(Path(__file__).parent)}
        (settings.output / "run.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
        journal = Journal(settings.output / "log.jsonl", from_step=progress.step)
    stopping = stop_on_sigterm()
    bar = tqdm(initial=progress.step, total=settings.max_steps, disable=not accelerator.is_main_process, unit="step")
    batches, window, started, num_bad, step = iter(stream), [], time.monotonic(), 0, progress.step
    answers.train()
    while step < settings.max_steps:
        batch = next(batches)
        # All chance of a step comes from its number: a resumed run needs no state of generators.
        step_seed = (settings.seed * 1_000_003 + step) * 1_024 + rank
        torch.manual_seed(step_seed)
        generator = torch.Generator().manual_seed(step_seed)
        rate = set_learning_rate(optimizer, settings.schedule.factor(step, settings.max_steps))

        names, pixels = tasks[batch["part"]], batch["pixel_values"].to(accelerator.device)
        ask = functools.partial(
            make_question,
            class_embeds=vocabulary.class_embeds(batch["label_space"]),
            size=tuple(pixels.shape[-2:]),
            generator=generator,
            with_classes=settings.classes_for_prompts,
        )
        questions = [move_question(ask(heads[name], batch["annotations"]), accelerator.device) for name in names]
        if settings.channels_last and pixels.ndim == 4:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with accelerator.autocast():
            predictions = answers(pixels, batch["pixel_mask"].to(accelerator.device), [q.inputs for q in questions])
        losses = {}
        for name, question, layers in zip(names, questions, predictions, strict=True):
            parts = criterion(layers, question.targets, is_matched=question.is_matched, generator=generator)
            losses |= {f"{name}/{part}": value for part, value in parts.items() if not part.startswith("layer_")}
        weights = [1.0, *(settings.alongside[name] for name in names[1:])]
        loss = sum(weight * losses[f"{name}/total"] for weight, name in zip(weights, names, strict=True))
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(answers.parameters(), settings.optimizer.max_grad_norm or float("inf"))
        if torch.isfinite(norm):
            optimizer.step()
            num_bad = 0
        else:
            num_bad += 1
            if num_bad >= MAX_BAD_STEPS:
                raise SystemExit(f"step {step}: {num_bad} gradients in a row are not finite; lower the learning rate")
        optimizer.zero_grad()

        step += 1
        bar.update()
        window.append({"loss": loss.detach(), "grad_norm": norm, **{k: v.detach() for k, v in losses.items()}})
        if step % settings.log_every == 0 or step == settings.max_steps:
            values = mean_of(window, accelerator)
            seconds = (time.monotonic() - started) / len(window)
            window, started = [], time.monotonic()
            if accelerator.is_main_process:
                journal.write(step, part=batch["part"], learning_rate=rate, seconds=round(seconds, 4), **values)
                bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        is_last = step == settings.max_steps or any_process(bool(stopping), accelerator)
        if is_last or step % settings.save_every == 0:
            save(step)
        if settings.evaluate_every and (step % settings.evaluate_every == 0 or step == settings.max_steps):
            measure(step)
            started = time.monotonic()
        if is_last:
            break

    bar.close()
    if step < settings.max_steps:
        accelerator.print(f"stopped at step {step} and saved; the same command with --resume goes on")
    elif accelerator.is_main_process:
        model.save_pretrained(settings.output / "model")
        edges = {"shortest_edge": min(settings.transform.size), "longest_edge": 2 * min(settings.transform.size)}
        pictures = OMGSegImageProcessor(size=edges, image_mean=list(settings.mean), image_std=list(settings.std))
        processor = OMGSegProcessor(pictures, next(iter(label_spaces.values())), vocabulary)
        processor.save_pretrained(settings.output / "model", label_spaces=list(label_spaces.values()))
        bar.write(f"the trained model is in {settings.output / 'model'}")
    accelerator.end_training()


def parse_arguments() -> tuple[Settings, bool]:
    """Settings of the command line, and whether to resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with settings")
    parser.add_argument("--output", type=Path, help="folder of the run")
    parser.add_argument("--max-steps", type=int, help="stop after so many steps in all")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings that differ from the file")
    arguments = parser.parse_args()
    words = list(arguments.changes)
    words += [f"output={arguments.output}"] if arguments.output else []
    words += [f"max_steps={arguments.max_steps}"] if arguments.max_steps is not None else []
    try:
        return load_settings(Settings, arguments.config, words), arguments.resume
    except SettingsError as error:
        raise SystemExit(f"{arguments.config}: {error}") from None


def check_processes(world_size: int, batch_size: int) -> None:
    """Some launch commands start several processes that do not know of each other: refuse."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != world_size:
        raise SystemExit(
            f"{launched} processes were launched but this one trains with {world_size}. For several CPU processes use: "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N recipes/cotrain.py ..."
        )
    if batch_size % world_size:
        raise SystemExit(f"batch_size is {batch_size}, the total: it must be a multiple of the {world_size} processes")


def find_start(output: Path, is_resumed: bool) -> Path | None:
    """The checkpoint to resume from. A folder that holds a run is not written over."""
    newest = newest_checkpoint(output / "checkpoints")
    if newest is not None and not is_resumed:
        raise SystemExit(f"{output} holds a run ({newest.name}): pass --resume to go on, or choose another output")
    if newest is None and is_resumed:
        raise SystemExit(f"{output} holds no complete checkpoint: leave out --resume to start")
    return newest


def build_source(source: SourceSettings, *, vocabulary: Vocabulary | None, unknown_names: str) -> SampleSource:
    """The samples of one entry of the settings, in classes that the vocabulary knows."""
    try:
        if source.kind == "scenes":
            samples: SampleSource = ProceduralScenes(**source.options)
        elif source.root is None:
            raise ValueError("root is missing: give the folder of the data set")
        else:
            space = None if source.label_space is None else builtin_label_space(source.label_space)
            samples = read_coco_panoptic(source.root, label_space=space, **source.options)
        if source.compose is not None:
            samples = ComposedScenes(samples, **source.compose)
    except (TypeError, ValueError, OSError) as error:
        raise SystemExit(f"source {source.name or source.kind}: {error}") from error
    classes = samples.label_space.classes
    known = tuple(entry for entry in classes if vocabulary is None or all(map(vocabulary.knows, names_of(entry))))
    if len(known) == len(classes):
        return samples
    unknown = ", ".join(entry.name for entry in classes if entry not in known)
    if unknown_names == "error":
        raise SystemExit(f"source {source.name or source.kind}: the vocabulary does not know {unknown}")
    space = LabelSpace(f"{samples.label_space.name}_known", known)
    return MappedSource(samples, space, unmapped="void")


def names_of(entry: LabelClass) -> tuple[str, ...]:
    """All names of a class."""
    return (entry.name, *entry.synonyms)


def mix_parts(settings: Settings, sources: list[SampleSource]) -> list[MixPart]:
    """Every task on every source that serves it; a task's share is split by the weights of its sources."""
    parts = []
    for task, share in settings.mix.items():
        wanted = [
            (part, source)
            for part, source in zip(settings.sources, sources, strict=True)
            if task in source.tasks and (part.tasks is None or task in part.tasks)
        ]
        if not wanted:
            raise SystemExit(f"mix: no source serves the task {task!r}")
        total = sum(part.weight for part, _ in wanted)
        parts += [
            MixPart(task, source, share * part.weight / total, settings.transform, f"{task}@{part.name or part.kind}")
            for part, source in wanted
        ]
    return parts


def build_model(settings: Settings, label_spaces: dict[str, LabelSpace]) -> OMGSegModel:
    """The model at step 0."""
    spaces = {name: space.to_dict() for name, space in label_spaces.items()}
    if settings.start_from is not None:
        return OMGSegModel.from_pretrained(settings.start_from, label_spaces=spaces, **settings.model)
    model = OMGSegModel(OMGSegConfig(label_spaces=spaces, default_task=next(iter(settings.mix)), **settings.model))
    if settings.backbone_weights is not None:
        load_trunk(model.backbone.trunk, efficientnet_lite0_weights())
    return model


def mean_of(window: list[dict[str, torch.Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Means over the steps since the last line, and over processes, by name."""
    names = sorted({name for values in window for name in values})
    means = torch.stack([torch.stack([v[name] for v in window if name in v]).mean().float() for name in names])
    return dict(zip(names, accelerator.reduce(means, "mean").tolist(), strict=True))


def stop_on_sigterm() -> list[int]:
    """A list that is filled when the run is asked to end: the step is finished and saved first."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return received


def any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether any process says yes."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


if __name__ == "__main__":
    main()
