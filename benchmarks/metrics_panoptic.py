"""Panoptic quality of pictures and videos: time against plain matching with numpy's `unique`, in one run.

    python benchmarks/metrics_panoptic.py       # half a minute; writes metrics_panoptic.json beside this file

Pictures: 100 pairs of PNGs, 640 x 480, 25 segments, read from disk by both. The plain way is that of panopticapi, timed
here as our own few lines: ids by arithmetic on the three planes, `unique` with counts of the prediction and of both ids
in one 64 bit number, then matching with dictionaries. Videos: 5 of 15 frames 1280 x 720, windows 1, 2, 4 and 6.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from omg_transformers.metrics.panoptic_files import score_panoptic_files
from omg_transformers.metrics.video_panoptic import WINDOWS, TubeOverlaps, VideoPanopticQuality

NUM_CLASSES, NUM_SEGMENTS = 20, 25
MIN_SPEEDUP, MAX_WINDOW_SHARE = 4.0, 0.10
OFFSET = 256**3


def make_ids(size: tuple[int, int], generator: np.random.Generator, shift: int = 0, seed_points=None) -> np.ndarray:
    """Ids 1 to NUM_SEGMENTS (H, W): the nearest of as many points, with wavy rims; `shift` moves everything."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    rows, columns = rows + 6 * np.sin((columns + shift) / 9), columns + 6 * np.sin((rows + shift) / 7) - shift
    points = seed_points if seed_points is not None else generator.random((NUM_SEGMENTS, 2))
    best = np.full(size, np.inf, dtype=np.float32)
    ids = np.zeros(size, dtype=np.int32)
    for number, (y, x) in enumerate(points, 1):
        distance = (rows - y * height) ** 2 + (columns - x * width) ** 2
        ids[distance < best] = number
        np.minimum(best, distance, out=best)
    return ids


def write_pictures(folder: Path, num_pictures: int, size: tuple[int, int]) -> None:
    """A truth and predictions in the COCO panoptic format."""
    generator = np.random.default_rng(0)
    categories = [{"id": label, "name": str(label), "isthing": label % 2} for label in range(NUM_CLASSES)]
    records: dict[str, list[dict[str, object]]] = {"gt": [], "pred": []}
    for name in records:
        (folder / name).mkdir()
    for number in range(num_pictures):
        points = generator.random((NUM_SEGMENTS, 2))
        numbers = np.append(0, generator.choice(OFFSET - 1, NUM_SEGMENTS, replace=False) + 1)
        for name, shift in (("gt", 0), ("pred", 5)):
            ids = numbers[make_ids(size, generator, shift, points)]
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / name / f"{number}.png")
            found, areas = np.unique(ids, return_counts=True)
            segments = [
                {"id": int(identity), "category_id": int(identity % NUM_CLASSES), "iscrowd": 0, "area": int(area)}
                for identity, area in zip(found, areas, strict=True)
            ]
            records[name].append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    for name, rows in records.items():
        (folder / f"{name}.json").write_text(json.dumps({"annotations": rows, "categories": categories}))


def read_plainly(path: Path) -> np.ndarray:
    planes = np.array(Image.open(path), dtype=np.uint32)
    return planes[..., 0] + 256 * planes[..., 1] + 256 * 256 * planes[..., 2]


def match_plainly(folder: Path) -> float:
    """The mean PQ over classes. Only what these pictures need: no void, no crowds."""
    truth, prediction = (json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "pred"))
    ious, weights = np.zeros(NUM_CLASSES), np.zeros(NUM_CLASSES)
    for record, other in zip(truth["annotations"], prediction["annotations"], strict=True):
        true_ids, predicted_ids = (
            read_plainly(folder / name / part["file_name"]) for name, part in (("gt", record), ("pred", other))
        )
        areas = dict(zip(*np.unique(predicted_ids, return_counts=True), strict=True))
        pairs = np.unique(true_ids.astype(np.uint64) * OFFSET + predicted_ids, return_counts=True)
        true_segments = {segment["id"]: segment for segment in record["segments_info"]}
        classes = {segment["id"]: segment["category_id"] for segment in other["segments_info"]}
        for segment in (*record["segments_info"], *other["segments_info"]):
            weights[segment["category_id"]] += 0.5
        for pair, shared in zip(*pairs, strict=True):
            segment, predicted = true_segments[int(pair) // OFFSET], int(pair) % OFFSET
            iou = shared / (areas[predicted] + segment["area"] - shared)
            if segment["category_id"] == classes[predicted] and iou > 0.5:
                ious[segment["category_id"]] += iou
    return float(np.mean(ious[weights > 0] / weights[weights > 0]))


def timed(run, repeats: int) -> tuple[list[float], object]:
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(round(time.perf_counter() - start, 4))
    return seconds, result


def time_pictures(num_pictures: int, repeats: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, num_pictures, (480, 640))
        ours, score = timed(lambda: score_panoptic_files(folder / "gt.json", folder / "pred.json"), repeats)
        plain, pq = timed(lambda: match_plainly(folder), repeats)
    if abs(score.compute()["pq"] - pq) > 1e-9:
        raise RuntimeError(f"the two ways differ: {score.compute()['pq']} and {pq}")
    ratio = statistics.median(plain) / statistics.median(ours)
    return {"pictures": num_pictures, "ours": ours, "plain": plain, "speedup": round(ratio, 2), "goal": MIN_SPEEDUP}


def time_videos(num_videos: int, repeats: int) -> dict[str, object]:
    generator = np.random.default_rng(1)
    points = generator.random((num_videos, NUM_SEGMENTS, 2))
    truths, predictions = (
        [
            np.stack([make_ids((720, 1280), generator, shift + 3 * frame, part) for frame in range(15)])
            for part in points
        ]
        for shift in (0, 8)
    )
    classes = {identity: identity % NUM_CLASSES for identity in range(1, NUM_SEGMENTS + 1)}

    def count_only():
        for prediction, truth in zip(predictions, truths, strict=True):
            TubeOverlaps.of_frames(prediction, truth)

    def count_windows(windows):
        metric = VideoPanopticQuality(NUM_CLASSES, windows=windows)
        for prediction, truth in zip(predictions, truths, strict=True):
            metric.update_maps(prediction, truth, classes, classes)
        return metric.compute()

    counting, _ = timed(count_only, repeats)
    whole, _ = timed(lambda: count_windows(WINDOWS), repeats)
    share = (statistics.median(whole) - statistics.median(counting)) / len(WINDOWS) / statistics.median(counting)
    return {
        "videos": num_videos,
        "counting_pass": counting,
        "all_windows": whole,
        "share_per_window": round(share, 4),
        "goal": MAX_WINDOW_SHARE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--videos", type=int, default=5)
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.pictures, arguments.videos) < 1:
        parser.error("--repeats, --pictures and --videos must be at least 1")
    report = {
        "task": __doc__.splitlines()[0],
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "pillow": Image.__version__},
        "pictures": time_pictures(arguments.pictures, arguments.repeats),
        "videos": time_videos(arguments.videos, arguments.repeats),
    }
    temporary = arguments.out.with_name(arguments.out.name + ".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(arguments.out)
    print(json.dumps({name: report[name] for name in ("pictures", "videos")}))


if __name__ == "__main__":
    main()
