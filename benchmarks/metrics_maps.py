"""Metrics of maps and masks: time of mIoU, and of J&F against dilation with scipy and OpenCV, in one run.

    python benchmarks/metrics_maps.py            # about a minute; writes metrics_maps.json beside this file

mIoU: 150 classes, 100 pictures of 512 x 512. J&F: 40 frames of 480 x 854 with 3 objects, the contours of a frame
dilated by a disk as DAVIS defines it; the plain implementation's frames are a sample of them, since it is slow.
OpenCV takes part where it is installed. One thread; all inputs are made up, the same in every run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import scipy
from scipy.ndimage import binary_dilation

from omg_transformers.metrics.contours import bound_pixels, contour
from omg_transformers.metrics.semantic import MeanIoU
from omg_transformers.metrics.video_object import VideoObjectQuality

try:
    import cv2
except ImportError:
    cv2 = None

NUM_CLASSES, NUM_PICTURES, PICTURE_SIZE = 150, 100, (512, 512)
NUM_FRAMES, FRAME_SIZE, NUM_OBJECTS = 40, (480, 854), 3
MAX_SECONDS, MAX_SHARE = 0.8, 0.5


def make_class_maps(count: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth of blocks with some void, and a prediction that is wrong in places: (count, H, W) uint8 each."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, NUM_CLASSES, (count, size[0] // 16, size[1] // 16), dtype=np.uint8)
    truth = coarse.repeat(16, 1).repeat(16, 2)
    prediction = np.roll(truth, 3, axis=2)
    prediction[:, ::7] = rng.integers(0, NUM_CLASSES, prediction[:, ::7].shape, dtype=np.uint8)
    truth[:, :20] = 255
    return prediction, truth


def make_id_maps(num_frames: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Moving wavy discs and a prediction with slightly other outlines: (T, H, W) uint8 each."""
    rng = np.random.default_rng(seed)
    truth, prediction = np.zeros((2, num_frames, *size), dtype=np.uint8)
    rows, columns = np.indices(size)
    for number in range(1, NUM_OBJECTS + 1):
        centre, speed = (0.25 + 0.5 * rng.random(2)) * size, rng.normal(0, 2, 2)
        radius, waves = size[0] * (0.1 + 0.08 * number), 5 + number
        for frame in range(num_frames):
            down, across = rows - centre[0] - frame * speed[0], columns - centre[1] - frame * speed[1]
            angles, distances = np.arctan2(down, across), np.hypot(down, across)
            truth[frame][distances < radius * (1 + 0.15 * np.sin(waves * angles))] = number
            prediction[frame][distances < radius * (1.02 + 0.17 * np.sin(waves * angles + 0.05))] = number
    return prediction, truth


def disk(radius: int) -> np.ndarray:
    rows, columns = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    return rows**2 + columns**2 <= radius**2


def dilate_with_scipy(edge: np.ndarray, radius: int) -> np.ndarray:
    return binary_dilation(edge, disk(radius))


def dilate_with_opencv(edge: np.ndarray, radius: int) -> np.ndarray:
    return cv2.dilate(edge.astype(np.uint8), disk(radius).astype(np.uint8)).astype(bool)


def plain_j_and_f(prediction: np.ndarray, truth: np.ndarray, dilate) -> list[tuple[float, float]]:
    """J and F of every object and frame by whole-picture dilation."""
    radius = int(bound_pixels(truth.shape[1:]))
    scores = []
    for number in range(1, NUM_OBJECTS + 1):
        for found, true in zip(prediction == number, truth == number, strict=True):
            edges = contour(found), contour(true)
            precision = (edges[0] & dilate(edges[1], radius)).sum() / max(1, edges[0].sum())
            recall = (edges[1] & dilate(edges[0], radius)).sum() / max(1, edges[1].sum())
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            scores.append(((found & true).sum() / (found | true).sum(), f))
    return scores


def our_j_and_f(prediction: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    metric = VideoObjectQuality(with_late_objects=True)
    # One more frame at each end, since those are not judged.
    ends = (np.concatenate([maps[:1], maps, maps[-1:]]) for maps in (prediction, truth))
    metric.update_maps(*ends)
    return [pair for quality in metric.objects for pair in zip(quality.j.tolist(), quality.f.tolist(), strict=True)]


def seconds_of(function, *arguments, repeats: int) -> dict[str, object]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)
    return {"median": round(statistics.median(seconds), 4), "seconds": [round(value, 4) for value in seconds]}


def time_miou(arguments: argparse.Namespace) -> dict[str, object]:
    count = 2 if arguments.tiny else NUM_PICTURES
    size = (64, 64) if arguments.tiny else PICTURE_SIZE
    predictions, truths = make_class_maps(count, size)

    def run() -> None:
        metric = MeanIoU(NUM_CLASSES, ignore_index=255)
        for pair in zip(predictions, truths, strict=True):
            metric.update_maps(*pair)
        metric.compute()

    timed = seconds_of(run, repeats=arguments.repeats)
    return {"pictures": count, "size": size, **timed, "goal": MAX_SECONDS, "is_reached": timed["median"] < MAX_SECONDS}


def time_j_and_f(arguments: argparse.Namespace) -> dict[str, object]:
    num_frames, size = (3, (60, 80)) if arguments.tiny else (NUM_FRAMES, FRAME_SIZE)
    prediction, truth = make_id_maps(num_frames, size)
    rows: dict[str, object] = {"frames": num_frames, "size": size, "objects": NUM_OBJECTS}
    rows["ours"] = ours = seconds_of(our_j_and_f, prediction, truth, repeats=arguments.repeats)
    step = max(1, num_frames // arguments.plain_frames)
    sampled = prediction[::step], truth[::step]
    for name, dilate in {"scipy": dilate_with_scipy, "opencv": dilate_with_opencv}.items():
        if name == "opencv" and cv2 is None:
            rows[name] = "not installed"
            continue
        difference = np.abs(np.subtract(our_j_and_f(*sampled), plain_j_and_f(*sampled, dilate))).max()
        if difference > 1e-12:
            raise RuntimeError(f"{name} and ours differ by {difference}: the times are not comparable")
        plain = seconds_of(plain_j_and_f, *sampled, dilate, repeats=arguments.plain_repeats)
        whole = plain["median"] * num_frames / len(sampled[0])
        share = ours["median"] / whole
        rows[name] = {
            "sampled_frames": len(sampled[0]),
            **plain,
            "all_frames": round(whole, 3),
            "ours_takes_share": round(share, 4),
            "goal": MAX_SHARE,
            "is_reached": share < MAX_SHARE,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain-repeats", type=int, default=3)
    parser.add_argument("--plain-frames", type=int, default=4, help="frames that the plain implementation works on")
    parser.add_argument("--tiny", action="store_true", help="tiny inputs: does it run at all?")
    arguments = parser.parse_args()
    if cv2 is not None:
        cv2.setNumThreads(1)
    report = {
        "task": __doc__.splitlines()[0],
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "opencv": cv2.__version__ if cv2 else None,
        },
        "miou": time_miou(arguments),
        "j_and_f": time_j_and_f(arguments),
    }
    temporary = arguments.out.with_name(arguments.out.name + ".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(arguments.out)
    print(json.dumps({name: report[name] for name in ("miou", "j_and_f")}, indent=1))


if __name__ == "__main__":
    main()
