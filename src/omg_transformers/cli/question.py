"""What the commands that ask a model have in common: which model, which task, which names."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from omg_transformers.inference import OMGSegPipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, names, model, device."""
    parser.add_argument("--task", help="a task head, see `omg-seg heads` (the model's own default)")
    parser.add_argument(
        "--labels",
        help='names with commas, synonyms with |: "person, sofa|couch, grass"; or the name of a label space',
    )
    parser.add_argument("--model", help="folder of a model (the small one inside this package)")
    parser.add_argument(
        "--text-tower",
        metavar="TAG|FILE",
        help="open_clip weights of the model's text tower, a tag or a local file: --labels may then be any text "
        "(only for models with an open_clip backbone, such as converted ones)",
    )
    parser.add_argument(
        "--seen-classes",
        metavar="NAMES|trained",
        help="which of the names were trained, with commas, or `trained`: those of the model's own label spaces; the "
        "CLIP backbone of models that have one then helps with the others",
    )
    parser.add_argument("--threshold", type=read_score, help="leave out what scores below, 0 to 1 (the task's own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (a GPU if there is one)")


def read_labels(text: str | None, own_spaces: Collection[str]) -> list[str] | str | None:
    """Names as the user typed them: a list; or one text when it is, or is meant as, the name of a label space.

    own_spaces: names of the checkpoint's label spaces, besides the built-in ones.
    """
    if text is None:
        return None
    from omg_transformers.labels import builtin_label_space_names

    names = [name.strip() for name in text.split(",")]
    spaces = [*own_spaces, *builtin_label_space_names()]
    # Names of spaces have underscores, names of things seldom: "coco_panoptik" is a slip, "potted_plant" is not.
    is_slip = "_" in names[0] and bool(difflib.get_close_matches(names[0], spaces, n=1, cutoff=0.8))
    return names[0] if len(names) == 1 and (names[0] in spaces or is_slip) else names


def read_seen_classes(text: str | None) -> list[str] | str | None:
    """Which names were trained as the user typed them: "trained", or names with commas."""
    from omg_transformers.inference.requests import TRAINED

    if text is None or text.strip() == TRAINED:
        return text and TRAINED
    return [name.strip() for name in text.split(",")]


def open_pipeline(model: str | None, device: str | torch.device | None, text_tower: str | None) -> OMGSegPipeline:
    """The pipeline that the options of a command ask for."""
    from transformers.utils import logging

    from omg_transformers import OMGSegConfig, default_checkpoint
    from omg_transformers.cli.text_tower import open_text_tower
    from omg_transformers.inference import load_pipeline

    logging.disable_progress_bar()
    vocabulary = None
    if text_tower is not None:
        vocabulary = open_text_tower(OMGSegConfig.from_pretrained(model or default_checkpoint()), text_tower)
    return load_pipeline(model, device=device, vocabulary=vocabulary)


def read_score(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a score from 0 to 1")
    return value


def read_count(text: str) -> int:
    """A whole number from 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value
