"""Two small heads that keep every promise; the broken heads of this folder each spoil one thing in them."""

from __future__ import annotations

import itertools
import math

import torch
from torch.nn import functional as F

from omg_transformers.ops.masks import decode_rles, encode_mask, encode_masks
from omg_transformers.plugins import API_VERSION, HeadSpec
from omg_transformers.structures import Annotation, QueryTargets, Segment, Segments, check_sizes


def segment_targets(annotation):
    known = [segment for segment in annotation.segments if not segment.is_crowd]
    masks = [decode_rles(segment.masks, annotation.size) for segment in known]
    unknown = decode_rles(annotation.void, annotation.size)
    for segment in annotation.segments:
        if segment.is_crowd:
            unknown = unknown | decode_rles(segment.masks, annotation.size)
    shape = (len(known), *unknown.shape)
    labels = torch.tensor([segment.category_id for segment in known], dtype=torch.int64)
    return QueryTargets(labels, torch.stack(masks) if masks else torch.zeros(shape, dtype=torch.bool), unknown)


def stripes(*, seed, size, num_classes, num_frames=1):
    """Upright stripes of random width and class, so that a mask reaches every row."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    cuts = 4 + (torch.randperm(width - 8, generator=generator)[:3] + 2).sort().values
    borders = [0, *cuts.tolist(), width]
    segments = []
    for left, right in itertools.pairwise(borders):
        mask = torch.zeros((height, width), dtype=torch.bool)
        mask[:, left:right] = True
        label = int(torch.randint(num_classes, (), generator=generator))
        segments.append(Segment(label, (encode_mask(mask),) * num_frames, track_id=len(segments) + 1))
    is_thing = tuple(index % 2 == 0 for index in range(num_classes))
    return Annotation(size, is_thing, tuple(segments), (None,) * num_frames)


def resized_probs(output, index, size):
    """(Q, T, H, W): cropped to the content before the resize, so that padding has no say."""
    logits = output.mask_logits[index].float()
    if output.input_size is not None and output.content_sizes is not None:
        cells = [
            math.ceil(content * grid / whole)
            for content, grid, whole in zip(
                output.content_sizes[index], logits.shape[-2:], output.input_size, strict=True
            )
        ]
        logits = logits[..., : cells[0], : cells[1]]
    return F.interpolate(logits, size=size, mode="bilinear").sigmoid()


class OverlapMetric:
    """Mean over the true segments of the best overlap with a result; `by_label` asks for the right class too."""

    def __init__(self, *, by_label):
        self.by_label, self.total, self.count = by_label, 0.0, 0

    def update(self, prediction, annotation, *, key=None):
        for segment in annotation.segments:
            truth = decode_rles(segment.masks, annotation.size)
            overlaps = [0.0]
            for index in range(len(prediction)):
                if not self.by_label or int(prediction.labels[index]) == segment.category_id:
                    mask = prediction.mask(index)
                    overlaps.append(float((mask & truth).sum() / (mask | truth).sum()))
            self.total, self.count = self.total + max(overlaps), self.count + 1

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count

    def compute(self):
        return {"overlap": self.total / self.count if self.count else math.nan}


class RegionHead:
    """Learned queries, classes, no overlaps: each pixel goes to the surest query."""

    api_version = API_VERSION
    spec = HeadSpec(name="region")

    def targets(self, annotation):
        return segment_targets(annotation)

    def postprocess(self, output, *, sizes, is_thing, threshold=0.5):
        check_sizes(sizes, len(output))
        if output.class_logits is None:
            raise ValueError("class_logits is None: pass class names to the model, this head needs them")
        return [self.result(output, index, tuple(size), threshold) for index, size in enumerate(sizes)]

    def result(self, output, index, size, threshold):
        probs = output.class_logits[index].float().softmax(-1)[:, :-1]
        scores, labels = probs.max(-1)
        kept = (scores > threshold).nonzero()[:, 0]
        masks = resized_probs(output, index, size)[kept]
        ids = torch.arange(1, len(kept) + 1)
        id_map = torch.zeros(masks.shape[1:], dtype=torch.int32)
        if len(kept):
            best, which = (masks * scores[kept, None, None, None]).max(0)
            id_map = torch.where(best > 0.25, which + 1, 0).to(torch.int32)
        return Segments(size, ids, labels[kept], scores[kept], id_map=id_map)

    def metric(self, *, num_classes):
        return OverlapMetric(by_label=True)

    def example_annotation(self, *, seed, size, num_classes):
        return stripes(seed=seed, size=size, num_classes=num_classes)


class ClickHead:
    """One click per query, no classes, results may overlap: a head that asks its own questions."""

    api_version = API_VERSION
    spec = HeadSpec(name="click", query_type="prompt", has_classes=False)
    num_questions = 6

    def targets(self, annotation):
        return segment_targets(annotation)

    def query_inputs(self, targets, *, size, generator):
        count = self.num_questions if any(len(target.labels) for target in targets) else 0
        points, answers = [], []
        for target in targets:
            if len(target.labels):
                chosen = torch.randint(len(target.labels), (count,), generator=generator)
                masks, labels = target.masks[chosen], target.labels[chosen]
                points.append(torch.stack([self.point(mask, generator) for mask in masks]))
            else:
                masks, labels = target.masks.new_zeros((count, *target.masks.shape[1:])), torch.full((count,), -1)
                points.append(torch.zeros(count, 1, 2))
            answers.append(QueryTargets(labels, masks, target.unknown))
        return {"input_points": torch.stack(points)}, answers

    def point(self, mask, generator):
        places = mask.any(0).nonzero()
        row, column = places[int(torch.randint(len(places), (), generator=generator))].tolist()
        return torch.tensor([[column + 0.5, row + 0.5]])

    def postprocess(self, output, *, sizes, is_thing):
        check_sizes(sizes, len(output))
        return [self.result(output, index, tuple(size)) for index, size in enumerate(sizes)]

    def result(self, output, index, size):
        masks = resized_probs(output, index, size) > 0.5
        count = len(masks)
        rles = tuple(encode_masks(mask) for mask in masks)
        scores = output.iou_logits[index].float().sigmoid()
        return Segments(size, torch.arange(1, count + 1), torch.full((count,), -1), scores, rles=rles)

    def metric(self, *, num_classes):
        return OverlapMetric(by_label=False)

    def example_annotation(self, *, seed, size, num_classes):
        return stripes(seed=seed, size=size, num_classes=num_classes)


class ClipHead(RegionHead):
    """The region head for clips."""

    spec = HeadSpec(name="clip_region", is_video=True)

    def example_annotation(self, *, seed, size, num_classes):
        return stripes(seed=seed, size=size, num_classes=num_classes, num_frames=3)
