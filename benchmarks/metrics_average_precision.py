"""Mask AP of a results file: our door with every installed backend, and the packages by themselves.

    python benchmarks/metrics_average_precision.py      # about a minute; writes metrics_average_precision.json

Synthetic: pictures of 480 x 640 with 25 true objects of 80 classes and 100 results each, all on one thread. The
packages by themselves read the same two files and stop at the precision and recall arrays. Also the state of the
streaming metric in bytes per picture.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np

from omg_transformers.metrics.average_precision import MaskAveragePrecision
from omg_transformers.metrics.coco_backends import OWN_BACKEND, installed_backends
from omg_transformers.metrics.coco_results import CocoFiles, score_coco_results
from omg_transformers.ops.masks import encode_mask

SIZE = (480, 640)
NUM_CLASSES, NUM_TRUTHS, NUM_RESULTS = 80, 25, 100
MAX_SLOWDOWN, MAX_BYTES = 1.1, 2048
DISTRIBUTIONS = {"hotcoco": "hotcoco", "faster_coco_eval": "faster-coco-eval", "pycocotools": "pycocotools"}


def ellipse(random: np.random.Generator) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    y, x = random.random(2) * SIZE
    height, width = 8 * 15 ** random.random(2)
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1


def text_rle(mask: np.ndarray) -> dict:
    rle = encode_mask(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_files(folder: Path, num_pictures: int, seed: int = 0) -> tuple[Path, Path]:
    """Truth and results; three results of four are an object, moved a little."""
    random = np.random.default_rng(seed)
    annotations, results = [], []
    for picture in range(1, num_pictures + 1):
        objects = [(ellipse(random), int(random.integers(NUM_CLASSES))) for _ in range(NUM_TRUTHS)]
        for mask, label in objects:
            rows, columns = np.nonzero(mask)
            box = [0, 0, 0, 0]
            if len(rows):
                box = [int(v) for v in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": picture, "category_id": label, "iscrowd": 0, "bbox": box}
                | {"area": int(mask.sum()), "segmentation": text_rle(mask)}
            )
        for number in range(NUM_RESULTS):
            mask, label = objects[number % NUM_TRUTHS] if number % 4 else (ellipse(random), number % NUM_CLASSES)
            moved = np.roll(mask, random.integers(-6, 7, 2), (0, 1))
            results.append(
                {"image_id": picture, "category_id": label, "score": float(random.random())}
                | {"segmentation": text_rle(moved)}
            )
    truth = {
        "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(1, num_pictures + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(NUM_CLASSES)],
        "annotations": annotations,
    }
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def run_package(name: str, truth: Path, results: Path) -> np.ndarray:
    """The package as its own page shows it."""
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "pycocotools":
            coco = importlib.import_module("pycocotools.coco").COCO
            evaluator = importlib.import_module("pycocotools.cocoeval").COCOeval
        else:
            package = importlib.import_module(name)
            coco = package.COCO
            evaluator = package.COCOeval if name == "hotcoco" else package.COCOeval_faster
        data = coco(str(truth))
        evaluation = evaluator(data, data.loadRes(str(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])


def measure(truth: Path, results: Path, repeats: int) -> list[dict]:
    """Seconds of every way, interleaved; their arrays must be equal."""
    backends = installed_backends()
    ways = {f"{name} by itself": (lambda name=name: run_package(name, truth, results)) for name in backends}
    for name in (*backends, "auto"):
        ways[f"ours, {name}"] = lambda name=name: score_coco_results(truth, results, backend=name).precision
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    reference = None
    for _ in range(repeats):
        for name, call in ways.items():
            start = time.perf_counter()
            precision = call()
            seconds[name].append(time.perf_counter() - start)
            reference = precision if reference is None else reference
            if not np.allclose(precision, reference, rtol=0, atol=1e-9):
                raise RuntimeError(f"{name} gives other numbers than {next(iter(ways))}")
    return [{"way": name, "median": statistics.median(times), "seconds": times} for name, times in seconds.items()]


def bytes_per_picture(truth: Path, results: Path, num_results: int) -> float:
    """Growth of the streaming metric's state with so many results per picture, in double precision."""
    files = CocoFiles(truth, results, "segm")
    metric = MaskAveragePrecision(NUM_CLASSES)
    pictures: dict = {number: ([], []) for number in files.images}
    for side, records in enumerate((files.truths, files.results)):
        for record in records:
            pictures[record["image_id"]][side].append(record)
    for number, (objects, found) in pictures.items():
        metric.update_records(objects, found[:num_results], key=number)
    return sum(sys.getsizeof(rows) for rows in metric.table.rows) / len(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), options.pictures)
        rows = measure(*paths, options.repeats)
        state = {count: bytes_per_picture(*paths, count) for count in (NUM_TRUTHS, NUM_RESULTS)}
    medians = {row["way"]: row["median"] for row in rows}
    fastest = min(medians[f"{name} by itself"] for name in installed_backends())
    ratio = medians["ours, auto"] / fastest
    report = {
        "workload": f"{options.pictures} pictures {SIZE[0]} x {SIZE[1]}, {NUM_TRUTHS} objects, {NUM_RESULTS} results",
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": 1},
        "versions": {name: version(DISTRIBUTIONS[name]) for name in installed_backends()},
        "rows": rows,
        "auto_to_fastest_package": {"ratio": ratio, "goal": f"at most {MAX_SLOWDOWN}"},
        "own_to_pycocotools": medians[f"ours, {OWN_BACKEND}"] / medians[f"{OWN_BACKEND} by itself"],
        "state_bytes_per_picture": {"by_results": state, "goal": f"at most {MAX_BYTES}"},
    }
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(options.out)
    for row in rows:
        print(f"{row['way']:32} {row['median']:.3f} s")
    print(f"auto to the fastest package: {ratio:.2f} (goal: at most {MAX_SLOWDOWN})")
    for count, size in state.items():
        print(f"state with {count} results per picture: {size:.0f} bytes per picture (goal: at most {MAX_BYTES})")


if __name__ == "__main__":
    main()
