"""Segment real pictures and a clip with the small model inside the package; nothing is downloaded.

    make demo                                        # four pictures that come with scikit-image
    python examples/demo.py a.jpg b.jpg --out DIR    # your own
    python examples/demo.py a.jpg --labels "person, dog, sofa|couch, grass" --clip frames_or_video

Writes one overlay per picture and task and for a click into the middle, overview.png with all of them, and clip.png:
frames of a clip with ids that stay. Without --clip it is a window that moves over the first picture. Prints what was
found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline
from transformers.utils import logging

from omg_transformers import InteractiveSession, Segments, VideoSession, default_checkpoint, open_frames
from omg_transformers.cli.folders import unique_names
from omg_transformers.processing.pictures import read_picture
from omg_transformers.visualization import draw_overlay

TASKS = ("semantic", "instance", "panoptic")
PICTURES = {"cat": "chelsea.png", "astronaut": "astronaut.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
TILE = (320, 240)  # (width, height) in the overview
MAX_ROWS = 6
NUM_FRAMES, SHOWN_FRAMES = 8, 4


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
    """Rows of pictures, each reduced to fit a tile."""
    tiles = [[Image.fromarray(cell) for cell in row] for row in rows]
    sheet = Image.new("RGB", (TILE[0] * max(map(len, tiles)), TILE[1] * len(tiles)), "white")
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            tile.thumbnail(TILE, Image.Resampling.LANCZOS)
            sheet.paste(tile, (x * TILE[0] + (TILE[0] - tile.width) // 2, y * TILE[1] + (TILE[1] - tile.height) // 2))
    return sheet


def moving_window(picture: np.ndarray) -> list[np.ndarray]:
    """A clip of a still picture: a window of three quarters of its width moves from left to right."""
    width = picture.shape[1] * 3 // 4
    starts = np.linspace(0, picture.shape[1] - width, NUM_FRAMES).astype(int)
    return [np.ascontiguousarray(picture[:, start : start + width]) for start in starts]


def main() -> None:
    """Segment every picture by every task and by a click, and one clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures of your own instead of scikit-image's")
    parser.add_argument("--labels", help="names with commas, synonyms with | (the names the model was trained on)")
    parser.add_argument("--clip", help="a folder of frames or a video file (its first frames are shown)")
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
        clip = moving_window(next(iter(pictures.values())))
        if options.clip:
            clip = [frame for _, frame in zip(range(NUM_FRAMES), open_frames(options.clip), strict=False)]
    except (ValueError, OSError) as error:
        raise SystemExit(f"{error}") from error

    rows, session = [], InteractiveSession(segmenter.model, segmenter.processor)
    for name, picture in pictures.items():
        rows.append([picture])
        print(f"\n{name}: {picture.shape[1]} x {picture.shape[0]} pixels")
        for task in TASKS:
            (segments,) = segmenter.segment([picture], task=task, labels=labels)
            print_table(task, segments, space.names)
            rows[-1].append(draw_overlay(picture, segments, space))
            Image.fromarray(rows[-1][-1]).save(options.out / f"{name}_{task}.png")
        session.set_picture(picture)
        clicked = session.add_points([[picture.shape[1] / 2, picture.shape[0] / 2]])
        rows[-1].append(draw_overlay(picture, clicked, None))
        Image.fromarray(rows[-1][-1]).save(options.out / f"{name}_click.png")
    contact_sheet(rows).save(options.out / "overview.png")
    print(f"\npicture, {', '.join(TASKS)}, click in the middle, side by side: {options.out / 'overview.png'}")

    video = VideoSession(segmenter.model, segmenter.processor, "video_panoptic", labels)
    drawn = [draw_overlay(result.frame, result.segments, space, ids=True) for result in video.stream(clip)]
    shown = np.linspace(0, len(drawn) - 1, min(SHOWN_FRAMES, len(drawn))).astype(int)
    contact_sheet([[drawn[index] for index in shown]]).save(options.out / "clip.png")
    print(f"{len(drawn)} frames of a clip, with ids that stay: {options.out / 'clip.png'}")
    print(f"every overlay at full size: {options.out}")


if __name__ == "__main__":
    main()
