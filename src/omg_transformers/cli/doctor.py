"""Show what is installed and what is broken: versions, devices, task heads, the default model."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SUMMARY = "show what is installed and what is broken"
DISTRIBUTIONS = (
    "omg-transformers", "torch", "torchvision", "transformers", "accelerate", "datasets", "open_clip_torch", "timm",
    "safetensors", "numpy", "scipy", "pillow", "pycocotools",
)  # fmt: skip
MODEL_FILES = ("config.json", "model.safetensors", "processor_config.json", "vocabulary.safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command takes none."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 when something is broken."""
    del options
    problems = _print_versions()
    _print_devices()
    problems += _print_plugins()
    problems += _print_default_model()
    print()
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{len(problems)} problems found" if problems else "everything is in order")
    return 1 if problems else 0


def _print_versions() -> list[str]:
    print(f"Python {platform.python_version()} on {platform.platform()}")
    problems = []
    for name in DISTRIBUTIONS:
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed: pip install {name}")
    return problems


def _print_devices() -> None:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    names = ["mps"] if torch.backends.mps.is_available() else []
    names += [f"cuda:{index} ({name})" for index, name in enumerate(gpus)]
    print(f"devices: {', '.join([f'cpu ({torch.get_num_threads()} threads)', *names])}")


def _print_plugins() -> list[str]:
    from omg_transformers.plugins import (
        available_heads,
        available_query_encoders,
        failed_heads,
        failed_query_encoders,
        head_origin,
        query_encoder_origin,
    )

    problems: list[str] = []
    for noun, names, failed, origin in (
        ("task heads", available_heads(), failed_heads(), head_origin),
        ("query encoders of plug-ins", available_query_encoders(), failed_query_encoders(), query_encoder_origin),
    ):
        print(f"{noun}: {', '.join(names) or 'none'}")
        for name in names:
            print(f"  {name}: broken" if name in failed else f"  {name}: {origin(name)}")
        problems += failed.values()
    return problems


def _print_default_model() -> list[str]:
    from omg_transformers import default_checkpoint

    folder: Path = default_checkpoint()
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        print(f"default model: missing ({folder})")
        return [f"the default model lacks {', '.join(missing)}: reinstall omg-transformers, or pass --model"]
    size = sum((folder / name).stat().st_size for name in MODEL_FILES) / 1e6
    print(f"default model: {size:.1f} MB ({folder})")
    return []
