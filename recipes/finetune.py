"""Teach a trained model your own pictures: looks at the folder, says what fits, then trains with `cotrain.py`.

1 CPU process     python recipes/finetune.py DATA --output runs/mine
N GPUs            accelerate launch --multi_gpu --num_processes N recipes/finetune.py DATA --output runs/mine
only look         python recipes/finetune.py DATA --output runs/mine --dry-run
go on             python recipes/finetune.py DATA --output runs/mine --resume

DATA is a folder in any layout that `omg-seg data detect DATA` knows. Names that the model's vocabulary does not know
are an error with the names that are like them; `--unknown-names new` learns them from nothing, `void` leaves them out.
Words after the options change settings of cotrain.py: `optimizer.learning_rate=1e-4 batch_size=16 ema_decay=0.999`.
The output folder gets `finetune.yaml`, which repeats the run, `report.txt`, and all that cotrain.py writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from cotrain import Settings  # the script beside this one

from omg_transformers import default_checkpoint
from omg_transformers.data import SampleSource, detect_layouts, open_layout
from omg_transformers.formats.atomic_file import write_bytes
from omg_transformers.model import OMGSegConfig
from omg_transformers.plugins import load_head
from omg_transformers.settings import load_settings
from omg_transformers.training.adaptation import describe_names, named_split, picture_settings, plan_tasks
from omg_transformers.training.command_line import refusing_mistakes
from omg_transformers.training.start import find_vocabulary, start_model, unknown_names

COTRAIN = Path(__file__).with_name("cotrain.py")


def main() -> None:
    """Look, report, write the settings, hand over to cotrain.py. Every process does the same; the first one talks."""
    arguments = parse_arguments()
    with refusing_mistakes():
        settings, lines = prepare(arguments)
        check(settings, arguments.changes)
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(lines), flush=True)
    if arguments.dry_run:
        return
    file = arguments.output / "finetune.yaml"
    if not arguments.resume:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_bytes(arguments.output / "report.txt", "\n".join([*lines, ""]).encode())
        write_bytes(file, yaml.safe_dump(settings, sort_keys=False).encode())
    words = ["--config", str(file), *(["--resume"] if arguments.resume else []), *arguments.changes]
    os.execv(sys.executable, [sys.executable, str(COTRAIN), *words])


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="your folder of pictures and annotations")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start-from", type=Path, default=default_checkpoint(), help="folder of a trained model")
    parser.add_argument("--kind", help="layout of the data; default: what is detected")
    parser.add_argument("--split", help="split to train on; default: the one called train..., or the only one")
    parser.add_argument("--validate", help="split to measure on; default: the one called val..., if any")
    options = "of the reader, as YAML: '{names: [cell, nucleus]}'; `docs/data.md` lists them"
    parser.add_argument("--options", type=reader_options, default={}, metavar="YAML", help=options)
    parser.add_argument("--tasks", default="", help="comma-separated; default: what the data can teach")
    parser.add_argument("--unknown-names", choices=("error", "void", "new"), default="error")
    parser.add_argument("--frozen", nargs="+", default=[], metavar="PREFIX", help="parts that do not train: backbone.")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings of cotrain.py")
    return parser.parse_intermixed_args()


def reader_options(text: str) -> dict[str, Any]:
    """The mapping that a text of YAML stands for."""
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a YAML mapping, such as '{{names: [cell, nucleus]}}'")
    return options


def prepare(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Settings for cotrain.py, and what a person should know about them."""
    start_from = arguments.start_from
    table = find_vocabulary(None, start_from)
    if table is None:
        raise ValueError(f"--start-from is {start_from}: expected a folder with config.json and vocabulary.safetensors")
    kind, splits = detect(arguments.data, arguments.kind)
    split = named_split(splits, arguments.split, ("train",), is_needed=True)
    source = open_layout(kind, arguments.data, split, **arguments.options)
    lines = [
        f"{arguments.data} is {kind}, split {split}: {source.num_samples} samples, {len(source.label_space)} classes"
    ]
    config = OMGSegConfig.from_pretrained(start_from)
    plan = plan_tasks(source, config.default_task, [task for task in arguments.tasks.split(",") if task])
    asked = [*plan.mix, *(f"{task} (alongside)" for task in plan.alongside)]
    lines += [f"it teaches {', '.join(asked)}", *describe_names(table, source.label_space, arguments.unknown_names)]
    if arguments.unknown_names == "error" and unknown_names(table, [source.label_space]):
        raise ValueError("\n".join([*lines, "choose --unknown-names new, or void, or another --start-from"]))
    start = start_model(
        [source.label_space],
        default_task=next(iter(plan.mix)),
        options={},
        start_from=start_from,
        frozen=arguments.frozen,
    )
    data = {"kind": kind, "name": "data", "root": str(arguments.data), "options": arguments.options}
    is_video = load_head(next(iter(plan.mix))).spec.is_video
    settings = {
        "output": str(arguments.output),
        "mix": plan.mix,
        "alongside": plan.alongside,
        "sources": [{**data, "split": split, **({"clip": {"num_frames": 2, "interval": 2}} if is_video else {})}],
        "start_from": str(start_from),
        "unknown_names": arguments.unknown_names,
        "frozen": arguments.frozen,
        "model": {},
        "max_steps": arguments.max_steps,
        **picture_settings(json.loads((start_from / "processor_config.json").read_text(encoding="utf-8"))),
        "classes_for_prompts": True,
        "loss": {"mask_loss": "maps", "iou_target": "iou"},
        "optimizer": {"learning_rate": 2e-4, "max_grad_norm": 1.0},
        "schedule": {"kind": "cosine", "warmup_steps": min(50, arguments.max_steps // 10)},
        "save_every": 100,
        "evaluation": evaluation(data, splits, split, arguments.validate, plan.mix, source),
    }
    settings["evaluate_every"] = 100 if settings["evaluation"] else 0
    if not settings["evaluation"]:
        lines.append("nothing is held out: there is no split to measure on; see --validate")
    return settings, [*lines, *start.report]


def check(settings: dict[str, Any], changes: list[str]) -> None:
    """Refuse what cotrain.py would refuse: before anything is written, and in a dry run, too."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "finetune.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        load_settings(Settings, file, changes)


def detect(folder: Path, kind: str | None) -> tuple[str, tuple[str, ...]]:
    """Layout and splits of a folder."""
    found = {detection.layout.name: detection.splits for detection in detect_layouts(folder)}
    if not found:
        raise ValueError(f"{folder} is in no known layout; `omg-seg data detect {folder}` says more")
    if kind is not None and kind not in found:
        raise ValueError(f"--kind is {kind!r}, but {folder} looks like {', '.join(found)}")
    chosen = kind or next(iter(found))
    return chosen, found[chosen]


def evaluation(
    data: dict[str, Any],
    splits: tuple[str, ...],
    split: str | None,
    wanted: str | None,
    mix: dict[str, float],
    source: SampleSource,
) -> list[dict[str, Any]]:
    """Entries for the held-out split, if there is one."""
    held_out = named_split(splits, wanted, ("val", "test"), is_needed=False)
    if held_out is None or held_out == split:
        return []
    held = open_layout(data["kind"], data["root"], held_out, label_space=source.label_space, **data["options"])
    count = held.num_samples
    limit = 50 if count is None else min(50, count)
    return [
        {"task": task, "num_samples": limit, "source": {**data, "name": held_out, "split": held_out}} for task in mix
    ]


if __name__ == "__main__":
    main()
