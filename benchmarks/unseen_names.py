"""Names composed of two words, some pairs never trained: how well are those found by name?

    python benchmarks/unseen_names.py          # about 15 minutes on one core; writes unseen_names.json beside this file

Procedural scenes of 5 shapes in 8 colours. A small model is trained from ImageNet weights of its backbone on scenes of
30 of the 40 pairs; the other 10 never occur, neither as names nor in pictures, but every colour and every shape of
theirs does. Names are vectors of the sentence encoder all-MiniLM-L6-v2, from the table of the model inside the package
(recipes/make_vocabulary.py; the encoder itself is not needed here). Then scenes with all 40 pairs are segmented, all 40
names and the grounds asked at once, and the IoU of every class counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import omg_transformers
from omg_transformers import LabelSpace, OMGSegConfig, OMGSegModel, Vocabulary, default_checkpoint, load_head
from omg_transformers.data import EvalTransform, ProceduralScenes, collate
from omg_transformers.data.label_mapping import map_annotation
from omg_transformers.data.shapes import GROUNDS
from omg_transformers.ops.masks import decode_rle
from omg_transformers.structures import Sample
from omg_transformers.training.loss import SegmentationLoss
from omg_transformers.training.loss_settings import LossSettings
from omg_transformers.training.optimizer import OptimizerSettings, ScheduleSettings, build_optimizer, set_learning_rate
from omg_transformers.training.pretrained import efficientnet_lite_weights, load_trunk
from omg_transformers.training.questions import make_question

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
PAIRS = [f"{color} {shape}" for shape in SHAPES for color in COLORS]
# Two colours of every shape; each colour keeps at least three shapes.
UNSEEN = [f"{COLORS[(place + 3 * turn) % 8]} {shape}" for place, shape in enumerate(SHAPES) for turn in range(2)]
SEEN = [pair for pair in PAIRS if pair not in UNSEEN]
GROUND = "ground"
MODEL = {
    "backbone_kind": "timm",
    "backbone_name": "tf_efficientnet_lite0",
    "freeze_backbone": False,
    "text_dim": 384,
    "hidden_size": 96,
    "num_attention_heads": 8,
    "pixel_decoder_layers": 1,
    "pixel_decoder_ffn_size": 192,
    "group_norm_groups": 12,
    "decoder_layers": 3,
    "decoder_ffn_size": 256,
    "num_queries": 20,
    "logit_scale": 30.0,
}


class PairScenes(ProceduralScenes):
    """Procedural scenes of some pairs alone."""

    def __init__(self, pairs: list[str], size: int, seed: int) -> None:
        super().__init__((size, size), num_objects=(2, 5), seed=seed)
        self.pairs, self.space = set(pairs), space_of(pairs)
        # The kinds of ground are one class; their own names are no part of the question.
        self.grounds = LabelSpace.from_names([*pairs, "|".join((GROUND, *GROUNDS))], things=pairs)

    def _shape(self, rng: np.random.Generator):
        while True:
            shape = super()._shape(rng)
            if self.label_space.names[shape.category_id] in self.pairs:
                return shape

    def sample(self, index: int) -> Sample:
        sample = super().sample(index)
        annotation = map_annotation(sample.annotation, sample.label_space, self.grounds)
        return replace(sample, annotation=annotation, label_space=self.space)


def space_of(pairs: list[str]) -> LabelSpace:
    return LabelSpace.from_names([*pairs, GROUND], things=pairs)


def main() -> None:
    arguments = parse_arguments()
    vocabulary = Vocabulary.load(default_checkpoint())
    started = time.perf_counter()
    torch.manual_seed(arguments.seed)
    model = OMGSegModel(OMGSegConfig(**MODEL))
    load_trunk(model.backbone.trunk, efficientnet_lite_weights("efficientnet_lite0"))
    train(model, vocabulary, arguments)
    minutes = (time.perf_counter() - started) / 60
    result = measure(model, vocabulary, arguments)
    write(arguments, {**result, "training_minutes": round(minutes, 1)})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=96, help="height and width of the scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def train(model: OMGSegModel, vocabulary: Vocabulary, arguments: argparse.Namespace) -> None:
    scenes, view = PairScenes(SEEN, arguments.side, arguments.seed), EvalTransform()
    optimizer = build_optimizer(
        model, OptimizerSettings(learning_rate=1.5e-3, backbone_factor=0.2, weight_decay=0.05, max_grad_norm=1.0)
    )
    schedule = ScheduleSettings(kind="cosine", warmup_steps=min(50, arguments.steps // 2))
    criterion, head = SegmentationLoss(LossSettings(mask_loss="maps", iou_target="iou")), load_head("panoptic")
    embeds, generator = vocabulary.class_embeds(scenes.space), torch.Generator().manual_seed(arguments.seed)
    model.train()
    for step in range(arguments.steps):
        set_learning_rate(optimizer, schedule.factor(step, arguments.steps))
        numbers = range(step * arguments.batch_size, (step + 1) * arguments.batch_size)
        batch = collate([view(scenes.sample(number)) for number in numbers], task="panoptic")
        question = make_question(
            head, batch["annotations"], class_embeds=embeds, size=(arguments.side,) * 2, generator=generator
        )
        output = model(batch["pixel_values"], batch["pixel_mask"], output_auxiliary=True, **question.inputs)
        layers = [*output.auxiliary, output.to_query_output()]
        losses = criterion(layers, question.targets, generator=generator)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == arguments.steps - 1:
            print(
                f"step {step}: loss {losses['total'].item():.2f}, class {losses['loss_class'].item():.3f}", flush=True
            )


@torch.inference_mode()
def measure(model: OMGSegModel, vocabulary: Vocabulary, arguments: argparse.Namespace) -> dict:
    """mIoU in percent over trained and never-trained pairs, and what the pixels of the latter are called."""
    scenes, view = PairScenes(PAIRS, arguments.side, arguments.seed + 1), EvalTransform()
    space = scenes.space
    head, embeds = load_head("semantic"), vocabulary.class_embeds(space)
    metric, called = head.metric(num_classes=len(space)), np.zeros((len(PAIRS), len(space) + 1), dtype=np.int64)
    model.eval()
    for number in range(arguments.scenes):
        sample = view(scenes.sample(number))
        batch = collate([sample], task="panoptic")
        output = model(batch["pixel_values"], batch["pixel_mask"], embeds)
        annotation = sample.annotation
        (found,) = head.postprocess(output.to_query_output(), sizes=[annotation.size], is_thing=space.is_thing)
        metric.update(found, annotation)
        count_names(called, found, annotation)
    ious = 100 * np.asarray(next(iter(metric.per_class().values())))
    index = {name: place for place, name in enumerate(space.names)}
    shares = {}
    for title, pairs in (("trained pairs", SEEN), ("never-trained pairs", UNSEEN)):
        shares[title] = {"mIoU": round(float(np.nanmean([ious[index[pair]] for pair in pairs])), 1)}
        shares[title] |= confusions(called[[index[pair] for pair in pairs]], pairs, space)
    shares[GROUND] = {"IoU": round(float(ious[index[GROUND]]), 1)}
    per_class = {name: None if np.isnan(ious[place]) else round(float(ious[place]), 1) for name, place in index.items()}
    return {"percent": shares, "scenes": arguments.scenes, "never_trained": UNSEEN, "iou_per_class": per_class}


def count_names(called: np.ndarray, found, annotation) -> None:
    """Rows: true pairs; columns: what their pixels are called, the last one void."""
    labels = np.full(annotation.size, called.shape[1] - 1)
    for place, label in enumerate(found.labels.tolist()):
        labels[found.mask(place)[0].numpy()] = label
    for segment in annotation.segments:
        if segment.category_id < len(called):
            inside = decode_rle(segment.masks[0]).numpy()
            called[segment.category_id] += np.bincount(labels[inside], minlength=called.shape[1])


def confusions(called: np.ndarray, pairs: list[str], space: LabelSpace) -> dict[str, float]:
    """Of the pixels of some pairs, the share called right, by right colour and other shape, by right shape alone."""
    sums = dict.fromkeys(("right name", "colour right, shape wrong", "shape right, colour wrong", "other"), 0)
    for row, pair in zip(called, pairs, strict=True):
        color, shape = pair.split()
        for name, count in zip([*space.names, "void"], row.tolist(), strict=True):
            words = name.split()
            if name == pair:
                sums["right name"] += count
            elif words[0] == color:
                sums["colour right, shape wrong"] += count
            elif words[-1] == shape:
                sums["shape right, colour wrong"] += count
            else:
                sums["other"] += count
    return {name: round(100 * count / max(1, int(called.sum())), 1) for name, count in sums.items()}


def write(arguments: argparse.Namespace, result: dict) -> None:
    result["settings"] = {"steps": arguments.steps, "batch_size": arguments.batch_size, "side": arguments.side}
    result["settings"]["seed"] = arguments.seed
    versions = {"omg-transformers": omg_transformers.__version__, "torch": torch.__version__}
    result["versions"] = {**versions, "python": platform.python_version()}
    temporary = arguments.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(arguments.out)
    print(json.dumps(result["percent"], indent=1))


if __name__ == "__main__":
    main()
