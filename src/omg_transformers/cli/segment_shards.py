"""`omg-seg segment --shards`: any number of pictures over any number of processes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Segment this process's part of what is not done yet. 1 when a picture failed and this process is alone."""
    from tqdm import tqdm

    from omg_transformers.cli.folders import list_inputs, prepare_folder
    from omg_transformers.cli.segment import open_question
    from omg_transformers.inference.bulk import segment_in_bulk
    from omg_transformers.inference.processes import join_processes
    from omg_transformers.processing.pictures import PICTURE_SUFFIXES

    if options.legend:
        raise ValueError("--legend belongs to overlays, and shards hold none: leave it out")
    if len(options.images) != 1:
        raise ValueError(f"shards take one folder or one list, {len(options.images)} inputs were given: write a list")
    inputs = list_inputs(options.images[0], PICTURE_SUFFIXES)
    prepare_folder(options.out)
    state = join_processes(options.device)
    device = state.device if options.device is None and state.num_processes > 1 else options.device
    pipeline, asked = open_question(options, device)
    share = -(-len(inputs) // state.num_processes)
    with tqdm(total=share, unit="picture", disable=not state.is_main_process or share < 2) as bar:

        def advance(key: str, problem: str | None) -> None:
            bar.update()
            if problem is not None:
                tqdm.write(f"failed: {key}: {problem}", file=sys.stderr)

        report = segment_in_bulk(pipeline, inputs, options.out, batch_size=options.batch_size, on_done=advance, **asked)
    print(
        f"process {report.process + 1} of {report.num_processes}: {report.num_done} pictures segmented, "
        f"{report.num_failed} failed, {report.num_before} of {len(inputs)} were done before: {options.out}"
    )
    # Among several, a process that ends with 1 makes the launcher kill the others.
    return 1 if report.num_failed and report.num_processes == 1 else 0
