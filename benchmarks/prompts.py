"""What prompts cost, and how good masks get with more of them, for the model inside the package.

    python benchmarks/prompts.py --root COCO     # minutes; writes prompts.json beside this file
    python benchmarks/prompts.py --only-speed    # seconds; needs no data

COCO is a folder with val2017/ and annotations/panoptic_val2017(.json), as ../shared/data/coco. Speed is at 480 x 854,
by the medians of repeats. Quality is the mean IoU over the things above 1 % of the picture: after each click of the
standard robot (it clicks into the middle of the largest error), with boxes, with a box and the robot's click, and with
the true mask, damaged, as a prompt. "by rule" is the same model with its correction weights taken out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion

import omg_transformers
from omg_transformers import InteractiveSession, OMGSegModel, OMGSegPipeline, OMGSegProcessor, default_checkpoint
from omg_transformers.data import EvalTransform, ProceduralScenes, read_coco_panoptic
from omg_transformers.labels import builtin_label_space
from omg_transformers.metrics.clicks import Click, RobotUser
from omg_transformers.metrics.prompt import mask_iou
from omg_transformers.ops.masks import decode_rle, rle_area

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (480, 854)
MIN_AREA_SHARE = 0.01
NUM_CLICKS = 5
GOALS = {"second prompt / first": 0.15, "100 boxes / one box": 3.0}


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    model = OMGSegModel.from_pretrained(arguments.model).eval()
    processor = OMGSegProcessor.from_pretrained(arguments.model)
    result = {"speed": speed(model, processor, arguments.repeats), "goals": GOALS}
    if not arguments.only_speed:
        kinds = {"trained" if model.query_decoder.correction is not None else "by rule": model.query_decoder.correction}
        for name, correction in {**kinds, "by rule": None}.items():
            model.query_decoder.correction = correction
            result[f"mean IoU, percent, {name}"] = quality(model, processor, arguments)
        model.query_decoder.correction = next(iter(kinds.values()))
    write(arguments.out, result, model)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco"
    parser.add_argument("--root", type=Path, default=beside, help="COCO folder (%(default)s)")
    parser.add_argument("--model", type=Path, default=default_checkpoint())
    parser.add_argument("--limit", type=int, default=60, help="only so many pictures")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only-speed", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if not arguments.only_speed and not (arguments.root / "annotations").is_dir():
        parser.error(f"--root {arguments.root} has no annotations/: give the folder of COCO 2017, or --only-speed")
    return arguments


def speed(model: OMGSegModel, processor: OMGSegProcessor, repeats: int) -> dict[str, float]:
    """Seconds, and the two ratios that have goals."""
    rng = np.random.default_rng(0)
    picture = ProceduralScenes(SIZE, num_objects=(6, 6)).sample(0).frames[0]
    session, pipe = InteractiveSession(model, processor), OMGSegPipeline(model=model, processor=processor, device="cpu")
    corners = rng.uniform(0, 0.7, (100, 2)) * (SIZE[1], SIZE[0])
    boxes = np.concatenate([corners, corners + rng.uniform(20, 140, (100, 2))], axis=1)
    boxes = boxes.clip(0, (SIZE[1], SIZE[0]) * 2).tolist()
    seconds: dict[str, list[float]] = {}

    def first() -> None:
        session.set_picture(picture)
        session.add_points([[400, 200]])

    steps: dict[str, Callable[[], object]] = {
        "first prompt": first,
        "second prompt": lambda: session.add_points([[500, 300]], [0]),
        "another object's box": lambda: session.add_box([100, 100, 300, 300], object_id=2),
        "one box": lambda: pipe.segment([picture], input_boxes=boxes[:1]),
        "100 boxes": lambda: pipe.segment([picture], input_boxes=boxes),
    }
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    found["second prompt / first"] = found["second prompt"] / found["first prompt"]
    found["100 boxes / one box"] = found["100 boxes"] / found["one box"]
    return {name: round(value, 4) for name, value in found.items()}


def quality(model: OMGSegModel, processor: OMGSegProcessor, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean IoU in percent for every kind of prompt."""
    space = builtin_label_space("coco_supercategory")
    source = read_coco_panoptic(arguments.root, "val2017", label_space=space)
    session, ious = InteractiveSession(model, processor), {}
    for index in range(min(arguments.limit, source.num_samples)):
        sample = EvalTransform()(source.sample(index))
        annotation = sample.annotation
        least = MIN_AREA_SHARE * annotation.size[0] * annotation.size[1]
        things = [
            decode_rle(segment.masks[0]).numpy()
            for segment in annotation.segments
            if annotation.is_thing[segment.category_id] and not segment.is_crowd and rle_area(segment.masks[0]) > least
        ]
        session.set_picture(sample.frames[0])
        for thing in things:
            for kind, value in one_thing(session, thing).items():
                ious.setdefault(kind, []).append(value)
    return {"objects": len(ious["box"]), **{kind: round(100 * statistics.mean(v), 1) for kind, v in ious.items()}}


def one_thing(session: InteractiveSession, thing: np.ndarray) -> dict[str, float]:
    """IoU by kind of prompt."""
    found = {}
    robot, mask = RobotUser(thing), None
    session.reset()
    for number in range(1, NUM_CLICKS + 1):
        click = robot.next_click(mask)
        if click is not None:
            mask = add_click(session, click)
        found[f"{number} clicks"] = mask_iou(mask, thing)
        if number == 1:
            several = session.masks(multimask_output=True)
            candidates = [mask_iou(several.mask(index)[0].numpy(), thing) for index in range(len(several))]
            found["1 click, best of 3 by score"] = candidates[int(several.scores.argmax())]
            found["1 click, best of 3 in truth"] = max(candidates)
    rows, columns = np.flatnonzero(thing.any(1)), np.flatnonzero(thing.any(0))
    session.reset()
    mask = session.add_box([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).mask(0)[0].numpy()
    found["box"] = mask_iou(mask, thing)
    click = RobotUser(thing).next_click(mask)
    found["box and a click"] = mask_iou(mask if click is None else add_click(session, click), thing)
    damaged = damage(thing)
    session.reset()
    mask = session.add_mask(damaged).mask(0)[0].numpy()
    found["damaged mask as it is"] = mask_iou(damaged, thing)
    found["damaged mask"] = mask_iou(mask, thing)
    click = RobotUser(thing).next_click(mask)
    found["damaged mask and a click"] = mask_iou(mask if click is None else add_click(session, click), thing)
    return found


def add_click(session: InteractiveSession, click: Click) -> np.ndarray:
    return session.add_points([[click.x + 0.5, click.y + 0.5]], [int(click.is_positive)]).mask(0)[0].numpy()


def damage(mask: np.ndarray) -> np.ndarray:
    """Half of it grown, half of it shrunk, by an eighth of its size."""
    width = max(1, round(np.sqrt(mask.sum()) / 8))
    grown, shrunk = binary_dilation(mask, iterations=width), binary_erosion(mask, iterations=width)
    middle = int(np.flatnonzero(mask.any(0)).mean())
    grown[:, middle:] = shrunk[:, middle:]
    return grown if grown.any() else mask


def write(path: Path, result: dict, model: OMGSegModel) -> None:
    result["parameters"] = model.num_parameters()
    result["machine"] = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    versions = {"omg-transformers": omg_transformers.__version__, "torch": torch.__version__}
    result["versions"] = {**versions, "python": platform.python_version()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
