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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from huggingface_hub.errors import StrictDataclassError
from tqdm import tqdm

from omg_transformers.data import Batch, MixedStream, SampleSource, TrainTransform, collate
from omg_transformers.data.mixture import SourceSettings, build_source, mix_parts
from omg_transformers.evaluation import EvaluationSettings, PipelineSegmenter, evaluate
from omg_transformers.inference import OMGSegPipeline
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.plugins import TaskHead, load_head
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.settings import load_settings, settings_to_dict
from omg_transformers.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from omg_transformers.training.journal import Journal, Window, describe_environment
from omg_transformers.training.launch import GradientGuard, StopSignal, check_processes, find_start, freeze_parameters
from omg_transformers.training.loss import SegmentationLoss
from omg_transformers.training.loss_settings import LossSettings
from omg_transformers.training.optimizer import OptimizerSettings, ScheduleSettings, build_optimizer, set_learning_rate
from omg_transformers.training.pretrained import efficientnet_lite_weights, load_trunk, random_vocabulary
from omg_transformers.training.questions import Answers, make_question, move_question


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. mix: share of the batches per task.

    alongside: heads that answer every batch too, from the same image features: the weight of their loss.
    classes_for_prompts: teach names also through heads that do not use them. corrections: how often prompts go on.
    vocabulary: folder of a table of names; null: a fixed random direction per name.
    unknown_names: classes that the vocabulary does not know are an error, or void.
    start_from: folder of weights to go on from. frozen: beginnings of names of parameters that do not train.
    """

    output: Path
    mix: dict[str, float]
    sources: list[SourceSettings]
    model: dict[str, Any]
    max_steps: int
    alongside: dict[str, float] = field(default_factory=dict)
    classes_for_prompts: bool = False
    corrections: float = 0.0
    vocabulary: Path | None = None
    unknown_names: Literal["error", "void"] = "error"
    start_from: Path | None = None
    backbone_weights: str | None = None
    frozen: list[str] = field(default_factory=list)
    batch_size: int = 8
    transform: TrainTransform = field(default_factory=TrainTransform)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    seed: int = 0
    num_workers: int = 0
    mixed_precision: Literal["no", "bf16"] = "no"
    channels_last: bool = False
    half_size_weights: bool = False
    log_every: int = 10
    save_every: int = 500
    evaluate_every: int = 0
    keep: int = 2
    evaluation: list[EvaluationSettings] = field(default_factory=list)


@dataclass
class Run:
    """What the loop works with. tasks: per part of the mix its task, then those alongside."""

    settings: Settings
    accelerator: Accelerator
    stream: MixedStream
    held_out: list[SampleSource]
    vocabulary: Vocabulary
    tasks: dict[str, tuple[str, ...]]
    heads: dict[str, TaskHead]
    model: OMGSegModel
    answers: Any
    optimizer: Any
    criterion: SegmentationLoss
    first_step: int


def main() -> None:
    """Settings, preparation, loop, result. Mistakes in the settings end the run before any work is done."""
    try:
        settings, is_resumed = parse_arguments()
        run = prepare(settings, is_resumed)
    except (ValueError, LookupError, StrictDataclassError) as error:
        raise SystemExit(f"{error}") from error
    last_step = train(run)
    if last_step < settings.max_steps:
        run.accelerator.print(f"stopped at step {last_step} and saved: the same command with --resume goes on")
    elif run.accelerator.is_main_process:
        print(f"the trained model is in {export(run)}")
    run.accelerator.end_training()


def parse_arguments() -> tuple[Settings, bool]:
    """Settings of the command line, and whether to resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with settings")
    parser.add_argument("--output", type=Path, help="folder of the run")
    parser.add_argument("--max-steps", type=int, help="how many steps the whole run has")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings that differ from the file")
    arguments = parser.parse_intermixed_args()
    given = {"output": arguments.output, "max_steps": arguments.max_steps}
    words = [*arguments.changes, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    return load_settings(Settings, arguments.config, words), arguments.resume


def prepare(settings: Settings, is_resumed: bool) -> Run:
    """Accelerator, data, heads, model, optimizer; then what a checkpoint knows."""
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        # A batch asks only some kinds of queries, so some parameters have no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    rank, world_size = accelerator.process_index, accelerator.num_processes
    check_processes(world_size, settings.batch_size)
    newest = find_start(settings.output, is_resumed)

    table = None if settings.vocabulary is None else Vocabulary.load(settings.vocabulary)
    build = functools.partial(build_source, is_known=table and table.knows, unknown=settings.unknown_names)
    sources = [build(source) for source in settings.sources]
    held_out = [build(part.source) for part in settings.evaluation]
    parts = mix_parts(settings.mix, list(zip(settings.sources, sources, strict=True)), settings.transform)
    tasks = {part.name: (part.task, *(t for t in settings.alongside if t in part.source.tasks)) for part in parts}
    stream = MixedStream(
        parts,
        batch_size=settings.batch_size // world_size,
        collate=functools.partial(collate, mean=settings.mean, std=settings.std, size=settings.transform.size),
        seed=settings.seed,
        rank=rank,
        world_size=world_size,
        num_workers=settings.num_workers,
    )

    torch.manual_seed(settings.seed)
    model = build_model(settings, {source.label_space.name: source.label_space for source in sources})
    optimizer = build_optimizer(model, settings.optimizer)
    progress = Progress(0, {})
    if newest is not None:
        progress = load_checkpoint(newest, model=model, optimizer=optimizer)
        stream.load_state_dict(progress.state["stream"])
    vocabulary = table or random_vocabulary([s.label_space for s in (*sources, *held_out)], model.config.text_dim)
    heads = {name: load_head(name) for name in sorted({name for names in tasks.values() for name in names})}
    answers, optimizer = accelerator.prepare(Answers(model), optimizer)
    loop = (model, answers, optimizer, SegmentationLoss(settings.loss), progress.step)
    return Run(settings, accelerator, stream, held_out, vocabulary, tasks, heads, *loop)


def build_model(settings: Settings, label_spaces: dict[str, LabelSpace]) -> OMGSegModel:
    """The model at step 0."""
    spaces = {name: space.to_dict() for name, space in label_spaces.items()}
    if settings.start_from is not None:
        model = OMGSegModel.from_pretrained(settings.start_from, label_spaces=spaces, **settings.model)
    else:
        config = OMGSegConfig(label_spaces=spaces, default_task=next(iter(settings.mix)), **settings.model)
        model = OMGSegModel(config)
    if settings.backbone_weights is not None:
        load_trunk(model.backbone.trunk, efficientnet_lite_weights(settings.backbone_weights))
    freeze_parameters(model, settings.frozen)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def train(run: Run) -> int:
    """The loop. Returns the number of steps that are done: fewer than `max_steps` after SIGTERM."""
    settings, accelerator, step = run.settings, run.accelerator, run.first_step
    record = {"settings": settings_to_dict(settings), "environment": describe_environment(Path(__file__).parent)}
    journal = Journal(settings.output, record, from_step=step, is_silent=not accelerator.is_main_process)
    bar = tqdm(initial=step, total=settings.max_steps, disable=not accelerator.is_main_process, unit="step")
    stop, guard, window, batches, is_stopped = StopSignal(), GradientGuard(), Window(), iter(run.stream), False
    run.answers.train()
    while step < settings.max_steps and not is_stopped:
        rate = set_learning_rate(run.optimizer, settings.schedule.factor(step, settings.max_steps))
        part, losses = compute_losses(run, batches, step)
        accelerator.backward(losses["loss"])
        limit = settings.optimizer.max_grad_norm or float("inf")
        losses["grad_norm"] = accelerator.clip_grad_norm_(run.answers.parameters(), limit)
        if guard.is_good(losses["grad_norm"], step):
            run.optimizer.step()
        run.optimizer.zero_grad()

        step += 1
        bar.update()
        window.add(losses)
        is_stopped = stop.is_set(accelerator.device)
        is_last = is_stopped or step == settings.max_steps
        if is_last or step % settings.log_every == 0:
            means = window.close()
            bar.set_postfix(loss=f"{means['loss']:.3f}", refresh=False)
            journal.write(step, part=part, learning_rate=rate, **means)
        if is_last or step % settings.save_every == 0:
            save(run, step)
        if settings.evaluate_every and (step % settings.evaluate_every == 0 or step == settings.max_steps):
            for figures in measure(run):
                journal.write(step, **figures)
                accelerator.print(f"step {step}: {figures}")
            window.restart()
    bar.close()
    return step


def compute_losses(run: Run, batches: Iterator[Batch], step: int) -> tuple[str, dict[str, torch.Tensor]]:
    """Ask every head of the next batch. Returns the part it is from, the weighted sum `loss`, and its parts."""
    settings, device = run.settings, run.accelerator.device
    batch = next(batches)
    # All chance in a step comes from its number: a resumed run needs no state of generators.
    seed = (settings.seed * 1_000_003 + step) * 1_024 + run.accelerator.process_index
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, names = batch["pixel_values"].to(device), run.tasks[batch["part"]]
    ask = functools.partial(
        make_question,
        class_embeds=run.vocabulary.class_embeds(batch["label_space"]),
        size=(pixels.shape[-2], pixels.shape[-1]),
        generator=generator,
        with_classes=settings.classes_for_prompts,
        correction_share=settings.corrections,
    )
    questions = [move_question(ask(run.heads[name], batch["annotations"]), device) for name in names]
    with run.accelerator.autocast():
        predictions = run.answers(pixels, batch["pixel_mask"].to(device), [question.inputs for question in questions])
    total, losses = torch.zeros((), device=device), dict[str, torch.Tensor]()
    for name, question, layers in zip(names, questions, predictions, strict=True):
        found = run.criterion(layers, question.targets, is_matched=question.is_matched, generator=generator)
        total = total + (1.0 if name == names[0] else settings.alongside[name]) * found["total"]
        losses |= {f"{name}/{part}": value.detach() for part, value in found.items() if not part.startswith("layer_")}
    return batch["part"], {"loss": total, **losses}


def save(run: Run, step: int) -> None:
    """A checkpoint of the whole run, by the main process."""
    if run.accelerator.is_main_process:
        save_checkpoint(
            run.settings.output / "checkpoints",
            Progress(step, {"stream": run.stream.state_dict()}),
            model=run.model,
            optimizer=run.optimizer.optimizer,
            keep=run.settings.keep,
        )
    run.accelerator.wait_for_everyone()


def measure(run: Run) -> list[dict[str, Any]]:
    """The figures of every entry of `evaluation`; each process answers its share of the samples."""
    found = []
    pipeline = OMGSegPipeline(model=run.model, processor=make_processor(run), device=run.accelerator.device)
    for part, source in zip(run.settings.evaluation, run.held_out, strict=True):
        limit, head = part.num_samples, load_head(part.task)
        figures = evaluate(PipelineSegmenter(pipeline), head, source, limit=limit, prompts=part.prompts).figures
        found.append({"held_out": part.source.title, **{f"{part.task}/{k}": round(v, 5) for k, v in figures.items()}})
    return found


def make_processor(run: Run) -> OMGSegProcessor:
    """What users will give their pictures to: they come out as large as in training."""
    settings, side = run.settings, min(run.settings.transform.size)
    edges = {"shortest_edge": side, "longest_edge": 2 * side}
    pictures = OMGSegImageProcessor(size=edges, image_mean=list(settings.mean), image_std=list(settings.std))
    return OMGSegProcessor(pictures, next(iter(run.model.config.label_spaces.values())), run.vocabulary)


def export(run: Run) -> Path:
    """The folder that `from_pretrained` loads: model, processor, vocabulary."""
    folder = run.settings.output / "model"
    half = run.settings.half_size_weights  # they are read back as float32: the configuration says so
    weights = {k: v.half() if half and v.is_floating_point() else v for k, v in run.model.state_dict().items()}
    run.model.save_pretrained(folder, state_dict=weights)
    make_processor(run).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
