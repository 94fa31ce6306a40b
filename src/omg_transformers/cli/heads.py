"""List the installed task heads: what each needs, and where it comes from."""

from __future__ import annotations

import argparse

SUMMARY = "list the installed task heads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command takes none."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print one line per head; 1 when a head cannot be loaded."""
    del options
    from omg_transformers.plugins import HeadLoadError, available_heads, head_origin, load_head

    names = available_heads()
    if not names:
        print("no task head is installed")
        return 1
    rows, failures = [("head", "queries", "input", "classes", "from")], []
    for name in names:
        try:
            spec = load_head(name).spec
        except HeadLoadError as error:
            failures.append(str(error))
            continue
        kind, classes = "clips" if spec.is_video else "pictures", "yes" if spec.has_classes else "no"
        rows.append((name, spec.query_type, kind, classes, f"{head_origin(name)}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for failure in failures:
        print(f"failed: {failure}")
    return 1 if failures else 0
