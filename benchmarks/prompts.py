"""What prompts cost, and how good masks get with more of them, for the model inside the package.

    python benchmarks/prompts.py [--data ../shared/data]    # minutes; writes prompts.json beside this file
    python benchmarks/prompts.py --only davis               # a minute; or speed (seconds, needs no data), or coco

speed: at 480 x 854, by the medians of repeats.
coco: mean IoU over the things above 1 % of the pictures of DATA/coco (val2017/, annotations/panoptic_val2017(.json)):
after each click of the standard robot (it clicks into the middle of the largest error), with boxes, with a box and the
robot's click, and with the true mask, damaged, as a prompt.
davis: mean IoU over all objects of DATA/DAVIS_first_frames, by box and by one click, beside masks had without looking.
The disk has the median area of the large things of DATA/coco/train2017, a second one that of these objects themselves.
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
from PIL import Image
from prompt_baselines import box_of, disk_at, ellipse_in, filled_box, iou, large_things, point_of
from scipy.ndimage import binary_dilation, binary_erosion

import omg_transformers
from omg_transformers import InteractiveSession, OMGSegModel, OMGSegPipeline, OMGSegProcessor, default_checkpoint
from omg_transformers.data import EvalTransform, ProceduralScenes, read_coco_panoptic
from omg_transformers.formats.atomic_file import write_bytes
from omg_transformers.labels import builtin_label_space
from omg_transformers.metrics.clicks import Click, RobotUser
from omg_transformers.metrics.prompt import mask_iou

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("speed", "coco", "davis")
SIZE = (480, 854)
NUM_CLICKS = 5
GOALS = {"second prompt / first": 0.15, "100 boxes / one box": 3.0}


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    model = OMGSegModel.from_pretrained(arguments.model).eval()
    processor = OMGSegProcessor.from_pretrained(arguments.model)
    parts = {
        "speed": lambda: speed(model, processor, arguments.repeats),
        "coco": lambda: quality(model, processor, arguments),
        "davis": lambda: davis(model, processor, arguments.data),
    }
    for name in arguments.only:
        write(arguments.out, name, parts[name](), model)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=beside, help="folder of data sets (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; others stay")
    parser.add_argument("--model", type=Path, default=default_checkpoint())
    parser.add_argument("--limit", type=int, default=60, help="only so many pictures of COCO")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    needed = {"coco": ("coco/annotations",), "davis": ("DAVIS_first_frames/Annotations", "coco/annotations")}
    for folder in (folder for name in arguments.only for folder in needed.get(name, ())):
        if not (arguments.data / folder).is_dir():
            parser.error(f"--data {arguments.data} has no {folder}: give the folder above it, or --only speed")
    return arguments


def speed(model: OMGSegModel, processor: OMGSegProcessor, repeats: int) -> dict[str, float]:
    """Seconds, and the two ratios that have goals (`GOALS`)."""
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
    source = read_coco_panoptic(arguments.data / "coco", "val2017", label_space=space)
    session, ious = InteractiveSession(model, processor), {}
    for index in range(min(arguments.limit, source.num_samples)):
        sample = EvalTransform()(source.sample(index))
        session.set_picture(sample.frames[0])
        for thing in large_things(sample.annotation):
            for kind, value in one_thing(session, thing.numpy()).items():
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
    session.reset()
    mask = session.add_box(box_of(torch.from_numpy(thing))).mask(0)[0].numpy()
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


def davis(model: OMGSegModel, processor: OMGSegProcessor, data: Path) -> dict[str, float]:
    """Mean IoU in percent for every kind of prompt, and for masks had without looking."""
    session, rng = InteractiveSession(model, processor), np.random.default_rng(0)
    ious, objects = {}, []
    pictures = sorted((data / "DAVIS_first_frames/Annotations/480p").glob("*/*.png"))
    for path in pictures:
        session.set_picture(data / "DAVIS_first_frames/JPEGImages/480p" / path.parent.name / f"{path.stem}.jpg")
        numbers = torch.from_numpy(np.array(Image.open(path)))
        for number in numbers.unique()[1:]:
            objects.append(numbers == number)
            for kind, mask in asked_once(session, objects[-1], rng).items():
                ious.setdefault(kind, []).append(iou(mask, objects[-1]))
    ious |= without_looking(objects, coco_areas(data / "coco"))
    return {
        "pictures": len(pictures),
        "objects": len(objects),
        **{f"mean IoU, percent, {kind}": round(100 * statistics.mean(values), 1) for kind, values in ious.items()},
    }


def asked_once(session: InteractiveSession, truth: torch.Tensor, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """The mask (H, W) for each kind of prompt alone."""
    session.reset()
    found = {"box": session.add_box(box_of(truth)).mask(0)[0]}
    for kind in ("deepest point", "random point"):
        session.reset()
        found[kind] = session.add_points([point_of(kind, truth, rng)]).mask(0)[0]
    return found


def coco_areas(root: Path) -> list[float]:
    """Shares of the picture that large things of other pictures cover."""
    source = read_coco_panoptic(root, "train2017", label_space=builtin_label_space("coco_supercategory"))
    samples = (EvalTransform()(source.sample(index)) for index in range(source.num_samples))
    return [float(thing.float().mean()) for sample in samples for thing in large_things(sample.annotation)]


def without_looking(objects: list[torch.Tensor], other_areas: list[float]) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    own = statistics.median(float(mask.float().mean()) for mask in objects)
    disks = {"median area of COCO things": statistics.median(other_areas), "median area of these objects": own}
    ious = {}
    for mask in objects:
        box = box_of(mask)
        ious.setdefault("box filled", []).append(iou(mask, filled_box(box, mask.shape)))
        ious.setdefault("ellipse in the box", []).append(iou(mask, ellipse_in(box, mask.shape)))
        for kind in ("deepest point", "random point"):
            point = point_of(kind, mask, rng)  # the same random points as those clicked
            for name, area in disks.items():
                ious.setdefault(f"disk at the {kind}, {name}", []).append(iou(mask, disk_at(point, area, mask.shape)))
    return ious


def write(path: Path, name: str, figures: dict, model: OMGSegModel) -> None:
    report = json.loads(path.read_text()) if path.is_file() else {}
    versions = {"omg-transformers": omg_transformers.__version__, "torch": torch.__version__}
    report[name] = {
        **figures,
        **({"goals": GOALS} if name == "speed" else {}),
        "parameters": model.num_parameters(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {**versions, "python": platform.python_version()},
    }
    write_bytes(path, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps({name: report[name]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
