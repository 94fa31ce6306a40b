"""Average the weights of runs of one model: a mean of several is often better than each (Wortsman et al. 2022).

    python recipes/average_weights.py runs/default/model runs/default_all_tasks/model --out runs/averaged

Configuration, processor and vocabulary are those of the last folder. It helps when the runs share their beginning, as
when one was trained on from the other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from omg_transformers.training.checkpoints import written_whole

WEIGHTS = "model.safetensors"


def main() -> None:
    """Read, check, average, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="models, as `from_pretrained` loads them"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the result; it must not exist")
    arguments = parser.parse_args()
    try:
        average(arguments.folders, arguments.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error
    print(f"the mean of {len(arguments.folders)} models is in {arguments.out}")


def average(folders: list[Path], out: Path) -> None:
    """Write the mean. ValueError for fewer than two folders, one without a model, different models, and used `out`."""
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} folder is given: expected two or more to average")
    if out.exists():
        raise ValueError(f"--out {out} exists: give a new folder")
    models = [_read(folder) for folder in folders]
    for folder, weights in zip(folders[1:], models[1:], strict=True):
        other = sorted(
            name
            for name in {*models[0], *weights}
            if name not in models[0] or name not in weights or models[0][name].shape != weights[name].shape
        )
        if other:
            raise ValueError(f"{folder} is another model than {folders[0]}: {', '.join(other[:4])} differ")
    mean = {name: _mean([weights[name] for weights in models]) for name in models[-1]}
    with written_whole(out) as part:
        shutil.copytree(folders[-1], part, dirs_exist_ok=True)
        save_file(mean, part / WEIGHTS, metadata={"format": "pt"})
        shutil.copymode(part / "config.json", part / WEIGHTS)  # safetensors lets only the owner read what it writes


def _read(folder: Path) -> dict[str, torch.Tensor]:
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}: give the folder of a model")
    return load_file(folder / WEIGHTS)


def _mean(tensors: list[torch.Tensor]) -> torch.Tensor:
    if not tensors[-1].is_floating_point():
        return tensors[-1]
    return torch.stack([tensor.float() for tensor in tensors]).mean(0).to(tensors[-1].dtype).contiguous()


if __name__ == "__main__":
    main()
