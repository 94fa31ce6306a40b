"""Evaluate a model on annotated data: figures, a table by class, a confusion picture, the worst samples.

The model is one of ours, or a saved Mask2Former, MaskFormer, OneFormer, EoMT, SAM or SAM 2 folder of transformers.
A killed run goes on with the same command. On several processes: `accelerate launch -m omg_transformers evaluate ...`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from omg_transformers.cli import held_out

SUMMARY = "evaluate a model on annotated data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, then what `compare` takes too."""
    parser.add_argument("--model", help="folder of a model (the small one inside this package)")
    held_out.add_arguments(parser)
    parser.add_argument("--out", type=Path, help="folder for results.json, per_class.csv, pictures and all answers")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print. 1 when a sample could not be used; the others are judged, and it is named."""
    folder = held_out.model_folder(options.model)
    work = held_out.HeldOut(options)
    if options.out is not None:
        from omg_transformers.cli.folders import prepare_folder

        prepare_folder(options.out)
    report = work.evaluate(folder, options.out)
    if work.state.is_main_process:
        from omg_transformers.evaluation.report import format_report

        print(format_report(report))
        if options.out is not None:
            print(f"written: {options.out}")
    return int(any(note.startswith("left out") for note in report.notes))
