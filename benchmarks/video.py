"""What following a video costs and how well it does it, with the model inside the package.

    python benchmarks/video.py [--data ../shared/data] [--frames 2000] [--only objects,stream,speed]

Measured: J&F of given objects on DAVIS beside copying the first mask and the original's proposal matching; memory and
frames per second of a long stream; clips beside pictures; 20 followed objects beside 1. Writes video.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from omg_transformers import OMGSegModel, OMGSegProcessor, default_checkpoint
from omg_transformers.formats.atomic_file import write_bytes
from omg_transformers.inference.tracking import match_masks
from omg_transformers.inference.video_objects import ObjectSession
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.metrics.video_object import VideoObjectQuality

CLIPS = ("dogs-jump", "car-shadow")
NUM_PROPOSALS = 25
SIZE = (270, 480)


def read_clip(root: Path, name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames, and id maps (T, H, W)."""
    frames = [np.array(Image.open(file).convert("RGB")) for file in sorted((root / "JPEGImages/480p" / name).iterdir())]
    maps = [np.array(Image.open(file)) for file in sorted((root / "Annotations/480p" / name).iterdir())]
    return frames, np.stack(maps)


def follow(model, processor, frames, truth) -> np.ndarray:
    session = ObjectSession(model, processor)
    for number in range(1, int(truth[0].max()) + 1):
        session.add_object(mask=truth[0] == number, object_id=number)
    return maps_of(session.stream(frames), truth.shape[1:])


def maps_of(results, size) -> np.ndarray:
    maps = []
    for result in results:
        drawn = np.zeros(size, np.uint8)
        for place, number in enumerate(result.segments.ids.tolist()):
            drawn[result.segments.mask(place)[0].numpy()] = number
        maps.append(drawn)
    return np.stack(maps)


def match_proposals(model, processor, frames, truth) -> np.ndarray:
    """The original: the best proposals of the first frame that overlap the first masks, kept by their queries."""
    session = VideoSession(
        model, processor, "video_instance", threshold=0.0, max_per_image=NUM_PROPOSALS * 4, mask_nms_threshold=0.95
    )
    count = int(truth[0].max())
    maps, owners = [], {}
    for index, result in enumerate(session.stream(frames)):
        drawn = np.zeros(truth.shape[1:], np.uint8)
        if index == 0:
            proposals = torch.stack([result.segments.mask(place)[0] for place in range(len(result.segments))])
            masks = torch.stack([torch.from_numpy(truth[0] == number) for number in range(1, count + 1)])
            chosen = match_masks(proposals, masks).tolist()
            owners = {int(result.segments.ids[place]): number for number, place in enumerate(chosen, 1) if place >= 0}
        for place, identity in enumerate(result.segments.ids.tolist()):
            if identity in owners:
                drawn[result.segments.mask(place)[0].numpy()] = owners[identity]
        maps.append(drawn)
    return np.stack(maps)


def measure_objects(model, processor, data: Path) -> dict[str, dict[str, float]]:
    ways = {
        "followed": lambda frames, truth: follow(model, processor, frames, truth),
        "first mask copied": lambda frames, truth: np.repeat(truth[:1], len(frames), axis=0),
        "proposals matched (original)": lambda frames, truth: match_proposals(model, processor, frames, truth),
    }
    figures: dict[str, dict[str, float]] = {}
    for way, answer in ways.items():
        metric = VideoObjectQuality()
        for name in CLIPS:
            frames, truth = read_clip(data / "DAVIS", name)
            one = VideoObjectQuality()
            prediction = answer(frames, truth)
            for judge in (metric, one):
                judge.update_maps(prediction, truth, name=name)
            figures.setdefault(way, {})[name] = round(one.compute()["j_and_f"], 3)
        figures[way].update({key: round(value, 3) for key, value in metric.compute().items()})
        print(way, figures[way], flush=True)
    return figures


def procedural_frames(count: int):
    """Coloured shapes that drift over a wall."""
    random = np.random.default_rng(0)
    wall = np.kron(random.integers(60, 120, (SIZE[0] // 10, SIZE[1] // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    colours = random.integers(0, 256, (20, 3))
    places, steps = random.uniform(0, 1, (20, 2)), random.normal(0, 0.004, (20, 2))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for index in range(count):
        frame = wall.copy()
        for colour, place, step in zip(colours, places, steps, strict=True):
            y, x = (place + index * step) % 1 * SIZE
            frame[(rows - y) ** 2 + (columns - x) ** 2 < 18**2] = colour
        yield frame


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_stream(model, processor, count: int) -> dict[str, float]:
    session = VideoSession(model, processor)
    early = late = state = 0
    start = time.perf_counter()
    for result in session.stream(procedural_frames(count)):
        if result.index >= count // 20:
            if result.index < count // 2:
                early = max(early, resident_bytes())
            else:
                late = max(late, resident_bytes())
        if result.index % 50 == 49:
            state = max(state, session.state.nbytes)
    seconds = time.perf_counter() - start
    figures = {
        "frames": count,
        "frames per second": round(count / seconds, 2),
        "peak MB, first half": round(early / 1e6, 1),
        "peak MB, second half": round(late / 1e6, 1),
        "growth %": round(100 * (late / early - 1), 2),
        "largest state MB": round(state / 1e6, 3),
    }
    print(figures, flush=True)
    return figures


def measure_speed(model, processor, repeats: int) -> dict[str, float]:
    frames = list(procedural_frames(12))
    sessions = {window: VideoSession(model, processor, window=window) for window in (1, 3, 6)}
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):  # in turns: this machine's speed changes by the minute
        for window, session in sessions.items():
            start = time.perf_counter()
            with torch.no_grad():
                for first in range(0, len(frames), window):
                    session._run(frames[first : first + window])
            seconds.setdefault(f"model, s per frame, window {window}", []).append(time.perf_counter() - start)
        for count in (1, 20):
            session = ObjectSession(model, processor)
            for number in range(count):
                mask = np.zeros(SIZE, bool)
                top, left = 50 * (number // 5), 90 * (number % 5)
                mask[top : top + 40, left : left + 40] = True
                session.add_object(mask=mask)
            start = time.perf_counter()
            list(session.stream(frames))
            seconds.setdefault(f"followed objects: {count}, s per frame", []).append(time.perf_counter() - start)
    figures = {key: round(float(np.median(values)) / len(frames), 4) for key, values in seconds.items()}
    one, many = (figures[f"followed objects: {count}, s per frame"] for count in (1, 20))
    figures["20 objects / 1 object"] = round(many / one, 2)
    print(figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="objects,speed,stream")
    arguments = parser.parse_args()
    model = OMGSegModel.from_pretrained(default_checkpoint()).eval()
    processor = OMGSegProcessor.from_pretrained(default_checkpoint())
    target = Path(__file__).with_suffix(".json")
    figures = json.loads(target.read_text()) if target.is_file() else {}
    parts = {
        "objects": lambda: measure_objects(model, processor, arguments.data),
        "speed": lambda: measure_speed(model, processor, arguments.repeats),
        "stream": lambda: measure_stream(model, processor, arguments.frames),
    }
    for name in arguments.only.split(","):
        figures[name] = parts[name]()
        write_bytes(target, (json.dumps(figures, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
