"""Compare models on the same annotated data, in one table: ours and saved ones of transformers (see `evaluate`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from omg_transformers.cli import held_out

SUMMARY = "compare models on the same annotated data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The models, then what `evaluate` takes too."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help='folders of models; "default": the small one inside this package'
    )
    held_out.add_arguments(parser)
    parser.add_argument("--out", type=Path, help="folder for comparison.csv, comparison.json and a report per model")


def run(options: argparse.Namespace) -> int:
    """Evaluate all models, then print the table. 1 when a sample could not be used."""
    if len(options.models) < 2:
        raise ValueError("one model is nothing to compare: give two or more, or use `omg-seg evaluate`")
    folders = [held_out.model_folder(None if model == "default" else model) for model in options.models]
    work = held_out.HeldOut(options)
    from omg_transformers.cli.folders import prepare_folder, unique_names

    names = unique_names(folders)
    if options.out is not None:
        prepare_folder(options.out)
    reports = [
        work.evaluate(folder, None if options.out is None else options.out / name)
        for folder, name in zip(folders, names, strict=True)
    ]
    if work.state.is_main_process:
        from omg_transformers.evaluation.comparison import compare_reports, format_comparison, write_comparison

        comparison = compare_reports(names, reports)
        print(format_comparison(comparison))
        if options.out is not None:
            write_comparison(comparison, options.out)
            print(f"written: {options.out}")
    return int(any(note.startswith("left out") for report in reports for note in report.notes))
