"""The loss of a batch of queries: classes, masks, and the quality of masks, at every prediction of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from omg_transformers.ops.points import random_points, sample_at_points, uncertain_points
from omg_transformers.training.loss_settings import FixedChoices, LossSettings
from omg_transformers.training.mask_targets import MaskTargets, tall
from omg_transformers.training.matcher import assign, class_costs, mask_costs
from omg_transformers.training.normalisers import Normalisers, count, count_unjudged

if TYPE_CHECKING:
    from torch import Tensor

    from omg_transformers.ops.points import Chance
    from omg_transformers.structures import QueryOutput, QueryTargets


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which query answers which segment: parallel (pairs,) index vectors; rows index the targets of the whole batch."""

    samples: Tensor
    queries: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class _View:
    """One layer's masks as flat vectors beside the targets', at shared places of each sample."""

    logits: Tensor  # (B, Q, P)
    masks: list[Tensor]  # per sample (N, P)
    known: Tensor | None  # (B, P)


class SegmentationLoss:
    """Weighted losses by name and their sum, `total`; the last layer's names are bare, earlier ones have `layer_i/`.

    Computed in float32 whatever the model's type. Regions that the targets call unknown change no loss and no matching
    cost. Normalisers are averaged over processes, so that N processes do what one does with the whole batch.
    """

    def __init__(self, settings: LossSettings | None = None) -> None:
        self.settings = settings or LossSettings()

    def __call__(
        self,
        predictions: Sequence[QueryOutput],
        targets: Sequence[QueryTargets],
        *,
        is_matched: bool = True,
        generator: Chance = None,
        choices: FixedChoices | None = None,
        normalisers: Normalisers | None = None,
    ) -> dict[str, Tensor]:
        """All losses, each a scalar that already carries its weight.

        predictions: one per decoder layer, coarse first, the last one last. is_matched: queries are matched to targets;
        False: query i answers target i. generator: draws the points; one per sample: they do not depend on the rest of
        the batch. normalisers: of the step that this is a part of; None: this is all of it.
        """
        _check(predictions, targets, is_matched)
        predictions = [layer.apply(lambda value: value.float()) for layer in predictions]
        masks = MaskTargets(targets, device=predictions[0].mask_logits.device)
        _check_labels(masks.labels, predictions[-1].class_logits)
        views = self.views(predictions, masks, is_matched=is_matched, generator=generator, choices=choices)
        pairs = self.match(predictions, masks, views) if is_matched else [_one_to_one(masks)] * len(predictions)
        if normalisers is None:
            normalisers = self._normalisers(predictions, masks, pairs, is_matched)
        losses: dict[str, Tensor] = {}
        for index, layer in enumerate(predictions):
            prefix = "" if index == len(predictions) - 1 else f"layer_{index}/"
            points = None if choices is None or choices.loss_points is None else choices.loss_points[index]
            parts = {
                **self._class_and_quality(layer, masks, pairs[index], views[index], normalisers, is_matched),
                **self._masks(layer, masks, pairs[index], views[index], normalisers, generator, points),
            }
            losses.update({prefix + name: value for name, value in parts.items()})
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def match(
        self, predictions: Sequence[QueryOutput], masks: MaskTargets, views: Sequence[_View | None]
    ) -> list[Pairs]:
        """The Hungarian assignment of every layer and sample."""
        costs = [
            self._cost(layer, masks, view, sample)
            for layer, view in zip(predictions, views, strict=True)
            for sample in range(len(masks.counts))
            if view is not None
        ]
        found = assign(costs)
        batch = len(masks.counts)
        return [self._pairs(found[index * batch : (index + 1) * batch], masks) for index in range(len(predictions))]

    @torch.no_grad()
    def _cost(self, layer: QueryOutput, masks: MaskTargets, view: _View, sample: int) -> Tensor:
        known = None if view.known is None else view.known[sample]
        entropy, dice = mask_costs(view.logits[sample], view.masks[sample], known)
        cost = self.settings.match_mask_cost * entropy + self.settings.match_dice_cost * dice
        if layer.class_logits is None:
            return cost
        quality = None if layer.iou_logits is None else layer.iou_logits[sample]
        labels = masks.labels[masks.rows(sample)]
        return cost + self.settings.match_class_cost * class_costs(layer.class_logits[sample], quality, labels)

    @staticmethod
    def _pairs(found: Sequence[tuple[Tensor, Tensor]], masks: MaskTargets) -> Pairs:
        samples = torch.cat([torch.full_like(queries, sample) for sample, (queries, _) in enumerate(found)])
        queries = torch.cat([queries for queries, _ in found])
        rows = torch.cat([rows + masks.starts[sample] for sample, (_, rows) in enumerate(found)])
        device = masks.labels.device
        return Pairs(samples.to(device), queries.to(device), rows.to(device))

    @torch.no_grad()
    def views(
        self,
        predictions: Sequence[QueryOutput],
        masks: MaskTargets,
        *,
        is_matched: bool = True,
        generator: Chance = None,
        choices: FixedChoices | None = None,
    ) -> list[_View | None]:
        """Predicted and true masks of every layer at the places where they are compared for matching and quality."""
        if self.settings.mask_loss == "maps":
            return [self._map_view(layer, masks) for layer in predictions]
        if not is_matched and self.settings.iou_target == "matched":
            return [None] * len(predictions)
        if choices is not None and choices.match_points is not None:
            stored = [torch.stack(list(layer)) for layer in choices.match_points]
            return [self._point_view(layer, masks, at) for layer, at in zip(predictions, stored, strict=True)]
        # One draw serves all layers: the targets are sampled once.
        points = random_points(
            len(masks.counts), self.settings.num_points, generator=generator, device=masks.labels.device
        )
        first = self._point_view(predictions[0], masks, points)
        return [first, *(self._point_view(layer, masks, points, first.masks) for layer in predictions[1:])]

    @staticmethod
    def _map_view(layer: QueryOutput, masks: MaskTargets) -> _View:
        size = (layer.mask_logits.shape[-2], layer.mask_logits.shape[-1])
        cells, known = masks.on_grid(size)
        logits = layer.mask_logits.detach().flatten(2)
        return _View(logits, list(torch.split(cells, masks.counts)), known if masks.has_unknown else None)

    @staticmethod
    def _point_view(
        layer: QueryOutput, masks: MaskTargets, points: Tensor, sampled: list[Tensor] | None = None
    ) -> _View:
        size = (layer.mask_logits.shape[-2], layer.mask_logits.shape[-1])
        logits = sample_at_points(tall(layer.mask_logits.detach()), points)
        if sampled is None:
            sampled = [masks.at_points(points[b : b + 1], masks.rows(b)) for b in range(len(masks.counts))]
        known = None
        if masks.has_unknown:
            known = masks.known_at_points(points, torch.arange(len(points), device=points.device), size)
        return _View(logits, sampled, known)

    def _normalisers(
        self, predictions: Sequence[QueryOutput], masks: MaskTargets, pairs: Sequence[Pairs], is_matched: bool
    ) -> Normalisers:
        batch, num_queries = predictions[0].mask_logits.shape[:2]
        labelled = torch.stack([(masks.labels[layer.rows] >= 0).sum() for layer in pairs]).sum() / len(pairs)
        counts = count(
            len(pairs[0].rows),
            labelled,
            batch=batch,
            num_queries=num_queries,
            is_matched=is_matched,
            settings=self.settings,
            num_unjudged=count_unjudged(masks.is_certain, masks.counts, num_queries),
        )
        return Normalisers.shared(counts, self.settings)

    def _class_and_quality(
        self,
        layer: QueryOutput,
        masks: MaskTargets,
        pairs: Pairs,
        view: _View | None,
        normalisers: Normalisers,
        is_matched: bool,
    ) -> dict[str, Tensor]:
        losses = {}
        if layer.class_logits is not None:
            void = layer.class_logits.shape[-1] - 1
            labels = torch.full(layer.class_logits.shape[:2], void, device=masks.labels.device)
            labels[pairs.samples, pairs.queries] = masks.labels[pairs.rows]
            entropy = F.cross_entropy(layer.class_logits.flatten(0, 1), labels.clamp(min=0).flatten(), reduction="none")
            entropy = _unless_open(entropy, layer.class_logits, labels == void, masks)
            weights = torch.where(labels == void, self.settings.no_object_weight, 1.0) * (labels >= 0)
            loss = (entropy * weights.flatten()).sum() / normalisers.classes
            losses["loss_class"] = self.settings.class_weight * loss
        if layer.backbone_class_logits is not None:
            named = masks.labels[pairs.rows] >= 0
            opinions = layer.backbone_class_logits[pairs.samples[named], pairs.queries[named]]
            entropy = F.cross_entropy(opinions, masks.labels[pairs.rows[named]], reduction="sum")
            losses["loss_backbone_class"] = self.settings.class_weight * entropy / normalisers.classes
        if layer.iou_logits is not None:
            is_trained = is_matched or not self.settings.follow_original
            loss = self._quality(layer.iou_logits, pairs, view, masks) / normalisers.quality
            losses["loss_iou"] = self.settings.iou_weight * is_trained * loss
        return losses

    def _quality(self, logits: Tensor, pairs: Pairs, view: _View | None, masks: MaskTargets) -> Tensor:
        # An unmatched query of a sample that is not exhaustive may show an object that nobody annotated.
        target, weight = torch.zeros_like(logits), torch.ones_like(logits) * ~masks.is_open[:, None]
        entropy_of = F.binary_cross_entropy_with_logits
        if self.settings.iou_target == "matched" or view is None:
            target[pairs.samples, pairs.queries] = weight[pairs.samples, pairs.queries] = 1.0
            probs = logits.sigmoid()
            miss = (1 - probs) * target + probs * (1 - target)
            alpha = self.settings.focal_alpha
            balance = alpha * target + (1 - alpha) * (1 - target)
            loss: Tensor = (
                entropy_of(logits, target, reduction="none") * balance * miss**self.settings.focal_gamma * weight
            ).sum()
            return loss
        iou, has_area = _pair_ious(view, pairs)
        target[pairs.samples, pairs.queries] = iou
        weight[pairs.samples, pairs.queries] = has_area.float()
        # The quality focal loss keeps its minimum at the target (Generalized Focal Loss, eq. 5).
        miss = (logits.sigmoid() - target).abs() ** self.settings.focal_gamma
        return (entropy_of(logits, target, reduction="none") * miss * weight).sum()

    def _masks(
        self,
        layer: QueryOutput,
        masks: MaskTargets,
        pairs: Pairs,
        view: _View | None,
        normalisers: Normalisers,
        generator: Chance,
        points: Tensor | None,
    ) -> dict[str, Tensor]:
        chosen = layer.mask_logits[pairs.samples, pairs.queries]
        num_places: Tensor | float
        if self.settings.mask_loss == "maps":
            assert view is not None
            logits, truth = chosen.flatten(1), torch.cat(view.masks)[pairs.rows]
            known = None if view.known is None else view.known[pairs.samples]
        else:
            logits, truth, known = self._at_points(chosen, masks, pairs, generator, points)
        if known is None:
            known = torch.ones_like(logits)
        num_places = known.sum(1).clamp(min=1.0)
        if self.settings.follow_original:
            num_places = float(self.settings.num_points)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probs, truth = logits.sigmoid() * known, truth * known
        dice = 1.0 - (2.0 * (probs * truth).sum(1) + 1.0) / (probs.sum(1) + truth.sum(1) + 1.0)
        loss_mask = ((entropy * known).sum(1) / num_places).sum() / normalisers.masks
        return {
            "loss_mask": self.settings.mask_weight * loss_mask,
            "loss_dice": self.settings.dice_weight * dice.sum() / normalisers.masks,
        }

    def _at_points(
        self,
        chosen: Tensor,
        masks: MaskTargets,
        pairs: Pairs,
        generator: Chance,
        points: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = (chosen.shape[-2], chosen.shape[-1])
        maps = tall(chosen)[:, None]
        if points is None:
            points = self._draw(maps, masks, pairs, size, generator)
        elif len(points) != len(chosen):
            raise ValueError(f"loss_points hold {len(points)} rows for {len(chosen)} matched masks")
        truth = masks.at_points(points, pairs.rows)
        return sample_at_points(maps, points)[:, 0], truth, masks.known_at_points(points, pairs.samples, size)

    @torch.no_grad()
    def _draw(
        self,
        maps: Tensor,
        masks: MaskTargets,
        pairs: Pairs,
        size: tuple[int, int],
        generator: Chance,
    ) -> Tensor:
        dead = masks.dead_cells(size)
        if isinstance(generator, Sequence):
            generator = [generator[sample] for sample in pairs.samples.tolist()]
        return uncertain_points(
            maps,
            self.settings.num_points,
            oversample_ratio=self.settings.oversample_ratio,
            importance_ratio=self.settings.importance_ratio,
            is_unknown=None if dead is None else dead[pairs.samples],
            generator=generator,
        )


def _unless_open(entropy: Tensor, logits: Tensor, is_unmatched: Tensor, masks: MaskTargets) -> Tensor:
    """Where not all classes are certain, an unmatched query is void or any class that is not: one entropy for all.

    entropy: (B * Q,). logits: (B, Q, K + 1). is_unmatched: (B, Q).
    """
    possible = masks.possible_outcomes(logits.shape[-1])
    if possible is None:
        return entropy
    either = logits.masked_fill(~possible[:, None], -torch.inf).logsumexp(-1)
    takes = is_unmatched & masks.is_open[:, None]
    return torch.where(takes.flatten(), (logits.logsumexp(-1) - either).flatten(), entropy)


@torch.no_grad()
def _pair_ious(view: _View, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """IoU of each pair's mask with its target over known places, and whether the pair has any area there."""
    predicted = (view.logits[pairs.samples, pairs.queries] > 0).float()
    truth = torch.cat(view.masks)[pairs.rows]
    known = torch.ones_like(truth) if view.known is None else view.known[pairs.samples]
    union = (torch.maximum(predicted, truth) * known).sum(1)
    overlap = (torch.minimum(predicted, truth) * known).sum(1)
    return overlap / union.clamp(min=1e-6), union > 0


def _one_to_one(masks: MaskTargets) -> Pairs:
    rows = torch.arange(len(masks.labels), device=masks.labels.device)
    starts = torch.tensor(masks.starts[:-1], device=rows.device)
    return Pairs(masks.sample_index, rows - starts[masks.sample_index], rows)


def _check_labels(labels: Tensor, class_logits: Tensor | None) -> None:
    if class_logits is None or not len(labels):
        return
    num_classes, highest = class_logits.shape[-1] - 1, int(labels.max())
    if highest >= num_classes:
        raise ValueError(
            f"targets hold label {highest} but class_embeds name {num_classes} classes: "
            "targets and class_embeds must come from one label space"
        )


def _check(predictions: Sequence[QueryOutput], targets: Sequence[QueryTargets], is_matched: bool) -> None:
    if not predictions:
        raise ValueError("predictions is empty: give one QueryOutput per decoder layer, the last one last")
    batch, num_queries, num_frames = predictions[-1].mask_logits.shape[:3]
    if len(targets) != batch:
        raise ValueError(f"targets has {len(targets)} entries for a batch of {batch}: give one per sample")
    for index, target in enumerate(targets):
        if target.masks.ndim == 4 and target.masks.shape[1] != num_frames:
            raise ValueError(
                f"targets[{index}].masks has {target.masks.shape[1]} frames, the predictions have {num_frames}"
            )
        if not is_matched and len(target.labels) != num_queries:
            raise ValueError(
                f"targets[{index}] has {len(target.labels)} segments for {num_queries} queries: without matching "
                "query i answers target i, so their numbers must agree"
            )
