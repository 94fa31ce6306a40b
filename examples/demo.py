"""Segment real pictures in three ways with the small model inside the package; nothing is downloaded.

    make demo                                        # four pictures that come with scikit-image
    python examples/demo.py a.jpg b.jpg --out DIR    # your own
    python examples/demo.py a.jpg --labels "person, dog, sofa|couch, grass"

Writes one overlay per picture and task, and overview.png with all of them; prints what was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline
from transformers.utils import logging

from omg_transformers import Segments, default_checkpoint
from omg_transformers.cli.folders import unique_names
from omg_transformers.processing.pictures import read_picture
from omg_transformers.visualization import draw_overlay

TASKS = ("semantic", "instance", "panoptic")
PICTURES = {"cat": "chelsea.png", "astronaut": "astronaut.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
TILE = (320, 240)  # (width, height) in the overview
MAX_ROWS = 6


def packaged_pictures() -> dict[str, Path]:
    """Photographs inside the scikit-image package, by name."""
    try:
        import skimage
    except ImportError as error:
        raise SystemExit(f"{error}: pip install 'omg-transformers[demo]', or name pictures of your own") from error
    return {name: Path(skimage.__file__).parent / "data" / file for name, file in PICTURES.items()}


def print_table(task: str, segments: Segments, names: Sequence[str]) -> None:
    """Name, score and share of the picture: the best instances, or the largest regions."""
    shares = [segments.mask(index).float().mean().item() for index in range(len(segments))]
    order = list(range(len(segments)))
    if segments.id_map is not None:
        order.sort(key=lambda index: -shares[index])
    print(f"  {task:<18} score   share")
    for index in order[:MAX_ROWS]:
        print(f"    {names[segments.labels[index]]:<16}{segments.scores[index]:>6.0%} {shares[index]:>7.1%}")
    if len(order) > MAX_ROWS or not order:
        print(f"    and {len(order) - MAX_ROWS} more" if order else "    nothing")


def contact_sheet(rows: Iterable[Sequence[np.ndarray]]) -> Image.Image:
    """One row per picture: the picture itself, then its overlays, each reduced to fit a tile."""
    tiles = [[Image.fromarray(cell) for cell in row] for row in rows]
    sheet = Image.new("RGB", (TILE[0] * (len(TASKS) + 1), TILE[1] * len(tiles)), "white")
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            tile.thumbnail(TILE, Image.Resampling.LANCZOS)
            sheet.paste(tile, (x * TILE[0] + (TILE[0] - tile.width) // 2, y * TILE[1] + (TILE[1] - tile.height) // 2))
    return sheet


def main() -> None:
    """Segment every picture by every task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures of your own instead of scikit-image's")
    parser.add_argument("--labels", help="names with commas, synonyms with | (the names the model was trained on)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="output folder (%(default)s)")
    options = parser.parse_args()

    paths = dict(zip(unique_names(options.pictures), options.pictures, strict=True)) or packaged_pictures()
    labels = [name.strip() for name in options.labels.split(",")] if options.labels else None
    options.out.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    segmenter = pipeline("omg-segmentation", model=str(default_checkpoint()))
    try:
        space = segmenter.resolve_labels(labels)
        pictures = {name: read_picture(path) for name, path in paths.items()}
    except ValueError as error:
        raise SystemExit(f"{error}") from error

    rows = []
    for name, picture in pictures.items():
        rows.append([picture])
        print(f"\n{name}: {picture.shape[1]} x {picture.shape[0]} pixels")
        for task in TASKS:
            (segments,) = segmenter.segment([picture], task=task, labels=labels)
            print_table(task, segments, space.names)
            rows[-1].append(draw_overlay(picture, segments, space))
            Image.fromarray(rows[-1][-1]).save(options.out / f"{name}_{task}.png")
    contact_sheet(rows).save(options.out / "overview.png")
    print(f"\npicture, {', '.join(TASKS)}, side by side: {options.out / 'overview.png'}")
    print(f"every overlay at full size: {options.out}")


if __name__ == "__main__":
    main()
