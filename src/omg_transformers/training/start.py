"""The model at step 0, from nothing or from given weights, and a report of what is new in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omg_transformers.labels import Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.training.launch import freeze_parameters
from omg_transformers.training.pretrained import efficientnet_lite_weights, load_trunk, random_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from omg_transformers.labels import LabelSpace


@dataclass(frozen=True, slots=True)
class Start:
    """A model that has not trained yet. report: lines for a person to check."""

    model: OMGSegModel
    report: tuple[str, ...]


def start_model(
    label_spaces: Sequence[LabelSpace],
    *,
    default_task: str,
    options: Mapping[str, Any],
    start_from: Path | None = None,
    backbone_weights: str | None = None,
    frozen: Sequence[str] = (),
) -> Start:
    """A model for these label spaces. options: of `OMGSegConfig`; they win over the config in `start_from`.

    backbone_weights: ImageNet's, see `efficientnet_lite_weights`. frozen: beginnings of names that do not train.
    What `start_from` lacks, or has in another shape, starts at random. Raises ValueError for a folder without a model,
    and when nothing of it fits.
    """
    spaces = {space.name: space.to_dict() for space in label_spaces}
    lines: list[str] = []
    if start_from is None:
        model = OMGSegModel(OMGSegConfig(label_spaces=spaces, default_task=default_task, **options))
    else:
        if not (start_from / "config.json").is_file():
            raise ValueError(f"start_from is {start_from}: no model is there; give a folder with config.json")
        model, found = OMGSegModel.from_pretrained(
            start_from, label_spaces=spaces, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        lines = _describe_loading(start_from, model, found)
    if backbone_weights is not None:
        trunk = model.backbone.trunk
        if not isinstance(trunk, nn.Module):
            raise ValueError("backbone_weights is given, but the backbone has no trunk of timm: use backbone_kind timm")
        load_trunk(trunk, efficientnet_lite_weights(backbone_weights))
        lines.append(f"the backbone starts from the ImageNet weights of {backbone_weights}")
    freeze_parameters(model, frozen)
    trained, whole = _size(p for p in model.parameters() if p.requires_grad), _size(model.parameters())
    lines.append(f"{trained / 1e6:.2f} of {whole / 1e6:.2f} million parameters train")
    return Start(model, tuple(lines))


def find_vocabulary(folder: Path | None, start_from: Path | None) -> Vocabulary | None:
    """The table of names in `folder`, else the one that lies beside the weights to start from, if any."""
    if folder is not None:
        return Vocabulary.load(folder)
    has_table = start_from is not None and (start_from / "vocabulary.safetensors").is_file()
    return Vocabulary.load(start_from) if has_table and start_from is not None else None


def choose_vocabulary(
    table: Vocabulary | None, label_spaces: Sequence[LabelSpace], dim: int, *, is_extended: bool = False
) -> Vocabulary:
    """Vectors for all names: those of the table; without one, a fixed random direction each.

    is_extended: names that the table does not know get a random direction too, instead of an error.
    """
    wanted = random_vocabulary(label_spaces, dim)
    if table is None:
        return wanted
    new = unknown_names(table, label_spaces)
    if not is_extended or not new:
        return table
    known = table.known_names or ()
    return Vocabulary.from_table([*known, *new], torch.cat([table.embed(known), wanted.embed(new)]))


def unknown_names(table: Vocabulary, label_spaces: Sequence[LabelSpace]) -> tuple[str, ...]:
    """The names and synonyms that a table does not know, sorted."""
    names = {name for space in label_spaces for texts in space.prompts for name in texts}
    return tuple(sorted(name for name in names if not table.knows(name)))


def _describe_loading(folder: Path, model: OMGSegModel, found: Mapping[str, Any]) -> list[str]:
    own = model.state_dict()
    mismatched = {entry[0]: entry for entry in found["mismatched_keys"]}
    missing = [name for name in found["missing_keys"] if name not in mismatched]
    kept = [name for name in own if name not in mismatched and name not in missing]
    if not kept:
        raise ValueError(f"start_from is {folder}: none of its weights fits this model; check the settings under model")
    lines = [f"{len(kept)} of {len(own)} tensors are taken from {folder}"]
    lines += [f"new, at random: {line}" for line in _by_part(missing)]
    for name, before, now in mismatched.values():
        lines.append(f"new, at random: {name}, which was {tuple(before)} and is {tuple(now)}")
    lines += [f"left behind: {line}" for line in _by_part(found["unexpected_keys"])]
    return lines


def _by_part(names: Sequence[str]) -> list[str]:
    """Names of tensors, counted by their first two parts: "query_decoder.correction (12 tensors)"."""
    counts = Counter(".".join(name.split(".")[:2]) for name in sorted(names))
    return [f"{part} ({number} tensor{'s' * (number > 1)})" for part, number in counts.items()]


def _size(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)
