"""What the model inside the package scores on held-out COCO pictures, beside simple baselines.

    python benchmarks/default_model.py --root COCO      # a minute or two; writes default_model.json beside this file

COCO is a folder with val2017/, train2017/ (for the baselines) and annotations/panoptic_{val,train}2017(.json), as
../shared/data/coco. Figures are over the 27 COCO supercategories, in percent, at the pictures' own size.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from prompt_baselines import (
    MIN_AREA_SHARE,
    box_of,
    disk_at,
    ellipse_in,
    filled_box,
    iou,
    large_things,
    point_of,
)

import omg_transformers
from omg_transformers import OMGSegModel, OMGSegProcessor, builtin_label_space, default_checkpoint, load_head
from omg_transformers.data import EvalTransform, read_coco_panoptic
from omg_transformers.metrics.semantic import class_ious, count_pixels
from omg_transformers.ops.masks import decode_rle, decode_rles

SPACE = "coco_supercategory"
CLICK_GRID = 7
PRIOR_CELLS = 16


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    model = OMGSegModel.from_pretrained(arguments.model).eval()
    processor = OMGSegProcessor.from_pretrained(arguments.model)
    space = builtin_label_space(SPACE)
    source = read_coco_panoptic(arguments.root, arguments.split, label_space=space)
    samples = [EvalTransform()(source.sample(index)) for index in range(source.num_samples)][: arguments.limit]
    options = model.config.head_options or {}
    heads = {name: load_head(name) for name in ("panoptic", "semantic")}
    metrics = {name: head.metric(num_classes=len(space)) for name, head in heads.items()}
    recall, recall_with_clicks, prompts = [], [], {"box": [], "deepest point": [], "random point": []}
    embeds = processor.class_embeds(space)
    rng = np.random.default_rng(0)
    for sample in samples:
        picture, annotation = sample.frames[0], sample.annotation
        inputs = processor(images=[Image.fromarray(picture)], return_tensors="pt", **size_arguments(arguments))
        with torch.inference_mode():
            features = model.get_image_features(inputs["pixel_values"], inputs["pixel_mask"])
            output = model(image_features=features, class_embeds=embeds)
            for name, head in heads.items():
                (segments,) = head.postprocess(
                    output.to_query_output(), sizes=[annotation.size], is_thing=space.is_thing, **options.get(name, {})
                )
                metrics[name].update(segments, annotation)
            things = large_things(annotation)
            found = masks_of(output, annotation.size)
            clicked = masks_of(ask(model, features, inputs, grid_points(annotation.size), annotation), annotation.size)
            recall += [best_iou(thing, found) > 0.5 for thing in things]
            recall_with_clicks += [best_iou(thing, torch.cat([found, clicked])) > 0.5 for thing in things]
            if things:
                for kind, ious in prompts.items():
                    ious += prompted_ious(kind, things, model, features, inputs, annotation, rng)
    figures = {
        **{f"panoptic/{name}": value for name, value in metrics["panoptic"].compute().items()},
        **{f"semantic/{name}": value for name, value in metrics["semantic"].compute().items()},
        f"recall of things above {MIN_AREA_SHARE:.0%}, {model.config.num_queries} masks": statistics.mean(recall),
        f"the same with {CLICK_GRID**2} grid clicks": statistics.mean(recall_with_clicks),
        **{f"mean IoU, {kind}": statistics.mean(ious) for kind, ious in prompts.items()},
    }
    write(arguments, model, figures, baselines(arguments.root, samples, space), len(samples), len(recall))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco"
    parser.add_argument("--root", type=Path, default=beside, help="COCO folder (%(default)s)")
    parser.add_argument("--split", default="val2017")
    parser.add_argument("--model", type=Path, default=default_checkpoint())
    parser.add_argument("--shortest-edge", type=int, help="instead of the processor's own size")
    parser.add_argument("--limit", type=int, help="only so many pictures")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if not (arguments.root / "annotations").is_dir():
        parser.error(f"--root {arguments.root} has no annotations/: give the folder of COCO 2017")
    return arguments


def size_arguments(arguments: argparse.Namespace) -> dict:
    if arguments.shortest_edge is None:
        return {}
    return {"size": {"shortest_edge": arguments.shortest_edge, "longest_edge": 2 * arguments.shortest_edge}}


def masks_of(output, size: tuple[int, int]) -> torch.Tensor:
    """(Q, H, W) bool at the picture's size, whatever their class or score."""
    (segments,) = load_head("interactive").postprocess(output.to_query_output(), sizes=[size], is_thing=())
    return torch.cat([decode_rles(rles, size) for rles in segments.rles])


def ask(model, features, inputs, points: np.ndarray | None, annotation, boxes: np.ndarray | None = None):
    """Prompts in pixels of the picture, scaled to the resized picture inside the input."""
    content = inputs["pixel_mask"][0].any(1).sum(), inputs["pixel_mask"][0].any(0).sum()
    scale = torch.tensor([content[1] / annotation.size[1], content[0] / annotation.size[0]])
    if boxes is not None:
        return model(image_features=features, input_boxes=torch.as_tensor(boxes).float()[None] * scale.repeat(2))
    return model(image_features=features, input_points=(torch.as_tensor(points).float() * scale)[None, :, None])


def grid_points(size: tuple[int, int]) -> np.ndarray:
    shares = (np.arange(CLICK_GRID) + 0.5) / CLICK_GRID
    x, y = np.meshgrid(shares * size[1], shares * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def best_iou(thing: torch.Tensor, masks: torch.Tensor) -> float:
    overlaps = (masks & thing).flatten(1).sum(1)
    unions = (masks | thing).flatten(1).sum(1)
    return float((overlaps / unions.clamp(min=1)).max())


def prompted_ious(kind: str, things, model, features, inputs, annotation, rng) -> list[float]:
    if kind == "box":
        output = ask(model, features, inputs, None, annotation, np.stack([box_of(thing) for thing in things]))
    else:
        points = np.stack([point_of(kind, thing, rng) for thing in things])
        output = ask(model, features, inputs, points, annotation)
    masks = masks_of(output, annotation.size)
    return [iou(thing, mask) for thing, mask in zip(things, masks, strict=True)]


def baselines(root: Path, samples, space) -> dict[str, float]:
    """What is had without looking: the most frequent class at each place, filled boxes, disks of the median size."""
    train = read_coco_panoptic(root, "train2017", label_space=space)
    train_samples = [EvalTransform()(train.sample(index)) for index in range(train.num_samples)]
    votes, areas = np.zeros((len(space), PRIOR_CELLS, PRIOR_CELLS)), []
    for sample in train_samples:
        for segment in sample.annotation.segments:
            mask = Image.fromarray(decode_rle(segment.masks[0]).numpy().astype(np.uint8) * 255)
            votes[segment.category_id] += np.asarray(mask.resize((PRIOR_CELLS, PRIOR_CELLS), Image.Resampling.BOX))
        areas += [float(thing.float().mean()) for thing in large_things(sample.annotation)]
    prior, median_area = votes.argmax(0), statistics.median(areas)
    confusion = np.zeros((len(space), len(space) + 1), dtype=np.int64)
    filled, ellipses, disks = [], [], []
    for sample in samples:
        height, width = sample.annotation.size
        guess = np.asarray(Image.fromarray(prior.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
        truth = np.full((height, width), -1)
        for segment in sample.annotation.segments:
            truth[decode_rle(segment.masks[0]).numpy()] = segment.category_id
        confusion += count_pixels(guess.astype(np.int64), truth, len(space))
        for thing in large_things(sample.annotation):
            filled.append(iou(thing, filled_box(box_of(thing), thing.shape)))
            ellipses.append(iou(thing, ellipse_in(box_of(thing), thing.shape)))
            centre = point_of("deepest point", thing, np.random.default_rng(0))
            disks.append(iou(thing, disk_at(centre, median_area, thing.shape)))
    return {
        "semantic/miou, most frequent class at each place": float(np.nanmean(class_ious(confusion))),
        "semantic/pixel_accuracy, most frequent class at each place": float(np.trace(confusion) / confusion.sum()),
        "mean IoU, box filled": statistics.mean(filled),
        "mean IoU, ellipse in the box": statistics.mean(ellipses),
        "mean IoU, disk of the median area at the deepest point": statistics.mean(disks),
    }


def write(arguments, model, figures: dict, simple: dict, num_pictures: int, num_things: int) -> None:
    percent = {name: round(100 * value, 1) for name, value in figures.items()}
    result = {
        "figures_percent": percent,
        "baselines_percent": {name: round(100 * value, 1) for name, value in simple.items()},
        "pictures": num_pictures,
        "things": num_things,
        "split": arguments.split,
        "label_space": SPACE,
        "parameters": model.num_parameters(),
        "versions": {
            "omg-transformers": omg_transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    temporary = arguments.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(arguments.out)
    for name, value in {**percent, **result["baselines_percent"]}.items():
        print(f"{value:6.1f}  {name}")


if __name__ == "__main__":
    main()
