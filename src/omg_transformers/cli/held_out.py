"""What `evaluate` and `compare` share: the data, the task, and how the work is split over processes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.cli import question

if TYPE_CHECKING:
    from omg_transformers.data import SampleSource
    from omg_transformers.evaluation.report import Report
    from omg_transformers.plugins import TaskHead

DEFAULT_TASK = "panoptic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, task and output."""
    parser.add_argument("--data", default="coco_panoptic", help="layout of the data set, or scenes (%(default)s)")
    parser.add_argument("--root", type=Path, help="folder of the data set (not for scenes)")
    parser.add_argument("--split", help="split of the data set (val2017 for coco_panoptic, else the only one)")
    parser.add_argument(
        "--label-space", help="name in these classes instead of the data set's own, such as coco_supercategory"
    )
    parser.add_argument(
        "--data-option", action="append", default=[], metavar="NAME=VALUE", help="option of the reader; repeatable"
    )
    parser.add_argument("--task", default=DEFAULT_TASK, help="a task head, see `omg-seg heads` (%(default)s)")
    parser.add_argument("--prompts", metavar="KIND", help="for tasks asked by prompts: box, click, random_click")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE",
        help="option of the task head, such as threshold=0.3; repeatable",
    )  # fmt: skip
    parser.add_argument("--limit", type=question.read_count, help="only the first samples")
    parser.add_argument(
        "--batch-size", type=question.read_count, default=1, help="samples per forward pass (%(default)s)"
    )
    parser.add_argument("--worst", type=int, default=8, help="how many of the worst samples to draw (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (a GPU if there is one)")


class HeldOut:
    """The data and the task that the options name; mistakes are found before any model is loaded."""

    def __init__(self, options: argparse.Namespace) -> None:
        from omg_transformers.data.mixture import SourceSettings, build_source
        from omg_transformers.inference.processes import join_processes
        from omg_transformers.plugins import load_head
        from omg_transformers.settings import load_settings, settings_to_dict

        self.options = options
        self.head: TaskHead = load_head(options.task)
        self.head_options = read_pairs(options.option, "--option")
        words = [f"kind={options.data}", f"options={json.dumps(read_pairs(options.data_option, '--data-option'))}"]
        split = options.split or ("val2017" if options.data == "coco_panoptic" else None)
        given = {"root": options.root, "split": split, "label_space": options.label_space}
        words += [f"{name}={value}" for name, value in given.items() if value is not None]
        settings = load_settings(SourceSettings, overrides=words)
        self.source: SampleSource = build_source(settings)
        if options.task not in self.source.tasks:
            raise ValueError(
                f"--task {options.task}: {options.data} can judge {', '.join(self.source.tasks)}, not this task"
            )
        self.about: dict[str, Any] = {"data": settings_to_dict(settings)}
        self.state = join_processes(options.device)

    def evaluate(self, model: Path, out: Path | None) -> Report:
        """The report on one model; the first process writes it into `out`."""
        from transformers.utils import logging

        from omg_transformers.evaluation.run import evaluate_model
        from omg_transformers.evaluation.segmenters import open_segmenter

        options = self.options
        logging.disable_progress_bar()
        return evaluate_model(
            open_segmenter(model, device=options.device or self.state.device),
            self.head,
            self.source,
            out,
            about=self.about,
            limit=options.limit,
            prompts=options.prompts,
            options=self.head_options,
            batch_size=options.batch_size,
            num_worst=options.worst,
            show_progress=True,
        )


def model_folder(text: str | None) -> Path:
    """The folder of a model; without one the small model inside this package."""
    if text is None:
        from omg_transformers import default_checkpoint

        return default_checkpoint()
    folder = Path(text)
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no model in {text!r}: give a folder with config.json and model.safetensors")
    return folder


def read_pairs(words: list[str], flag: str) -> dict[str, Any]:
    """The options NAME=VALUE of a command line, values as YAML. flag: for errors."""
    import yaml

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{flag} {word}: expected NAME=VALUE, such as threshold=0.3")
        found[name] = yaml.safe_load(value)
    return found
