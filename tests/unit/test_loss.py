"""The loss: its values, what it must not look at, and what it must survive."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from omg_transformers.structures import QueryOutput, QueryTargets
from omg_transformers.training.loss import LossSettings, SegmentationLoss
from omg_transformers.training.normalisers import Normalisers, count_targets

SETTINGS = {
    "points": LossSettings(num_points=64),
    "maps": LossSettings(mask_loss="maps"),
    "points_iou": LossSettings(num_points=64, iou_target="iou"),
    "maps_iou": LossSettings(mask_loss="maps", iou_target="iou"),
}


def make_predictions(*, layers=2, batch=2, queries=6, classes=3, frames=1, size=(8, 12), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return [
        QueryOutput(draw(batch, queries, classes + 1), draw(batch, queries, frames, *size), draw(batch, queries))
        for _ in range(layers)
    ]


def make_targets(*, counts=(3, 2), frames=1, size=(32, 48), unknown=None, labels=None):
    generator = torch.Generator().manual_seed(5)
    targets = []
    for count in counts:
        owner = torch.randint(0, count + 1, (frames, 4, 6), generator=generator)
        owner = F.interpolate(owner[None].float(), size, mode="nearest")[0].long()
        masks = torch.stack([owner == index for index in range(count)]) if count else torch.zeros(0, frames, *size) > 0
        chosen = torch.arange(count) % 3 if labels is None else torch.tensor(labels[:count])
        targets.append(QueryTargets(chosen, masks, unknown))
    return targets


def run(settings, predictions, targets, **options):
    options.setdefault("generator", torch.Generator().manual_seed(1))
    return SegmentationLoss(settings)(predictions, targets, **options)


def perfect_predictions(targets, *, num_classes=3, queries=6):
    masks = torch.full((len(targets), queries, 1, 32, 48), -20.0)
    classes = torch.full((len(targets), queries, num_classes + 1), 0.0)
    classes[..., -1] = 30.0
    quality = torch.full((len(targets), queries), -20.0)
    for index, target in enumerate(targets):
        for row, label in enumerate(target.labels):
            query = queries - 1 - row
            masks[index, query] = target.masks[row].float() * 40 - 20
            classes[index, query] = F.one_hot(label, num_classes + 1).float() * 30
            quality[index, query] = 20.0
    return [QueryOutput(classes, masks, quality)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_perfect_answer_in_any_order_has_no_loss(name):
    targets = make_targets()
    losses = run(SETTINGS[name], perfect_predictions(targets), targets)
    assert losses["loss_class"].item() == pytest.approx(0.0, abs=1e-4)
    if SETTINGS[name].mask_loss == "maps":  # points lie on edges, where interpolated logits are near 0
        assert losses["total"].item() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("name", SETTINGS)
def test_names_say_the_layer_and_the_total_is_their_sum(name):
    losses = run(SETTINGS[name], make_predictions(), make_targets())
    parts = {"loss_class", "loss_iou", "loss_mask", "loss_dice"}
    assert set(losses) == parts | {f"layer_0/{part}" for part in parts} | {"total"}
    assert losses["total"].item() == pytest.approx(sum(v.item() for k, v in losses.items() if k != "total"), rel=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("is_matched", [True, False])
def test_logits_where_nothing_is_known_change_no_loss(name, is_matched):
    unknown = torch.zeros(1, 32, 48, dtype=torch.bool)
    unknown[:, 8:20, 12:30] = True
    targets = make_targets(counts=(3, 3), unknown=unknown)
    predictions = make_predictions(queries=6 if is_matched else 3)
    changed = []
    for layer in predictions:
        masks = layer.mask_logits.detach().clone()
        # Cells of 4 x 4 pixels that are unknown as a whole.
        masks[..., 2:5, 3:7] = 50.0 * torch.randn_like(masks[..., 2:5, 3:7])
        changed.append(replace(layer, mask_logits=masks))
    first = run(SETTINGS[name], predictions, targets, is_matched=is_matched)
    second = run(SETTINGS[name], changed, targets, is_matched=is_matched)
    for key in first:
        assert first[key].item() == second[key].item(), key


@pytest.mark.parametrize("name", SETTINGS)
def test_logits_where_something_is_known_do_change_the_loss(name):
    targets = make_targets(unknown=torch.zeros(1, 32, 48, dtype=torch.bool))
    predictions = make_predictions()
    changed = [replace(layer, mask_logits=layer.mask_logits.detach() + 1.0) for layer in predictions]
    first, second = run(SETTINGS[name], predictions, targets), run(SETTINGS[name], changed, targets)
    assert abs(first["total"].item() - second["total"].item()) > 0.1


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unknown_region_of_no_size_changes_nothing(name):
    without = run(SETTINGS[name], make_predictions(), make_targets())
    blank = torch.zeros(1, 32, 48, dtype=torch.bool)
    with_blank = run(SETTINGS[name], make_predictions(), make_targets(unknown=blank))
    assert without["total"].item() == pytest.approx(with_blank["total"].item(), rel=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_empty_pictures_train_and_touch_every_output(name, counts):
    predictions = make_predictions()
    losses = run(SETTINGS[name], predictions, make_targets(counts=counts))
    losses["total"].backward()
    for layer in predictions:
        for tensor in (layer.class_logits, layer.mask_logits, layer.iou_logits):
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()
    assert losses["total"].isfinite()


@pytest.mark.parametrize("name", SETTINGS)
def test_everything_unknown_trains_no_mask(name):
    predictions = make_predictions()
    unknown = torch.ones(1, 32, 48, dtype=torch.bool)
    losses = run(SETTINGS[name], predictions, make_targets(unknown=unknown))
    losses["total"].backward()
    assert losses["loss_mask"].item() == 0.0
    assert predictions[0].mask_logits.grad.abs().max().item() == 0.0


@pytest.mark.parametrize("name", SETTINGS)
def test_bfloat16_predictions_are_reduced_in_float32(name):
    predictions = make_predictions(dtype=torch.bfloat16)
    losses = run(SETTINGS[name], predictions, make_targets())
    losses["total"].backward()
    assert losses["total"].dtype == torch.float32
    assert predictions[0].mask_logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("name", SETTINGS)
def test_clips_of_several_frames_train(name):
    losses = run(SETTINGS[name], make_predictions(frames=3), make_targets(frames=3))
    assert losses["total"].isfinite()


def test_whole_maps_are_the_mean_over_cells_of_matched_queries():
    settings = LossSettings(mask_loss="maps")
    predictions, targets = make_predictions(layers=1, batch=1, queries=2), make_targets(counts=(2,), size=(8, 12))
    losses = run(settings, predictions, targets, is_matched=False)
    truth = targets[0].masks.float()
    expected = 5.0 * F.binary_cross_entropy_with_logits(predictions[0].mask_logits[0], truth)
    assert losses["loss_mask"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_prompts_of_a_bigger_batch_weigh_the_same():
    """The original divides by the prompts of one picture and so doubles the loss with the batch (defect 9)."""
    settings = LossSettings(mask_loss="maps")
    one, target = make_predictions(batch=1, queries=3), make_targets(counts=(3,))
    two = [
        QueryOutput(*(tensor.repeat(2, *[1] * (tensor.ndim - 1)) for tensor in parts))
        for parts in ((layer.class_logits, layer.mask_logits, layer.iou_logits) for layer in one)
    ]
    single = run(settings, one, target, is_matched=False)
    double = run(settings, two, target * 2, is_matched=False)
    assert single["loss_mask"].item() == pytest.approx(double["loss_mask"].item(), rel=1e-5)
    original = run(replace(settings, follow_original=True), two, target * 2, is_matched=False)
    once = run(replace(settings, follow_original=True), one, target, is_matched=False)
    assert original["loss_mask"].item() == pytest.approx(2 * once["loss_mask"].item(), rel=1e-5)


def test_a_segment_without_class_is_left_out_of_the_class_loss_and_its_normaliser():
    settings = LossSettings(mask_loss="maps", no_object_weight=0.0)
    predictions = make_predictions(layers=1, batch=1, queries=3)
    losses = run(settings, predictions, make_targets(counts=(3,), labels=[-1, 1, -1]), is_matched=False)
    expected = 2.0 * F.cross_entropy(predictions[0].class_logits[0, 1:2], torch.tensor([1]))
    assert losses["loss_class"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("mask_loss", ["points", "maps"])
def test_the_quality_learns_the_iou_of_the_mask(mask_loss):
    settings = LossSettings(mask_loss=mask_loss, num_points=4096, iou_target="iou")
    truth = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    truth[..., :4, :] = True
    masks = torch.full((1, 1, 1, 8, 8), -9.0)
    masks[..., :2, :] = 9.0  # half of the truth: IoU 0.5
    target = [QueryTargets(torch.tensor([0]), truth)]

    def loss_at(iou):
        output = QueryOutput(None, masks, torch.logit(torch.tensor([[iou]])))
        return run(settings, [output], target, is_matched=False)["loss_iou"].item()

    assert loss_at(0.3) > 10 * loss_at(0.5)
    assert loss_at(0.7) > 10 * loss_at(0.5)


def test_no_class_names_train_masks_only():
    predictions = [replace(layer, class_logits=None, iou_logits=None) for layer in make_predictions()]
    losses = run(LossSettings(mask_loss="maps"), predictions, make_targets())
    assert {name.split("/")[-1] for name in losses} == {"loss_mask", "loss_dice", "total"}


def test_the_generator_decides_the_loss_at_points():
    first = run(SETTINGS["points"], make_predictions(), make_targets())
    again = run(SETTINGS["points"], make_predictions(), make_targets())
    other = run(SETTINGS["points"], make_predictions(), make_targets(), generator=torch.Generator().manual_seed(2))
    assert first["total"].item() == again["total"].item() != other["total"].item()


def test_a_foreign_label_space_is_refused():
    with pytest.raises(ValueError, match="label 7 but class_embeds name 3"):
        run(SETTINGS["maps"], make_predictions(), make_targets(labels=[7, 0, 0]))


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="1 entries for a batch of 2"):
        run(SETTINGS["maps"], make_predictions(), make_targets(counts=(2,)))
    with pytest.raises(ValueError, match="3 segments for 6 queries"):
        run(SETTINGS["maps"], make_predictions(), make_targets(), is_matched=False)
    with pytest.raises(ValueError, match="2 frames, the predictions have 1"):
        run(SETTINGS["maps"], make_predictions(), make_targets(frames=2))
    with pytest.raises(ValueError, match="predictions is empty"):
        run(SETTINGS["maps"], [], make_targets())


@pytest.mark.parametrize("bad", [{"mask_loss": "dense"}, {"iou_target": "giou"}, {"num_points": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LossSettings(**bad)


# -- samples of which not everything is annotated


def certain(*flags):
    return torch.tensor(flags, dtype=torch.bool)


@pytest.mark.parametrize("name", SETTINGS)
def test_queries_without_a_segment_learn_nothing_where_no_class_is_certain(name):
    targets = [replace(target, is_certain=certain(0, 0, 0)) for target in make_targets(counts=(0, 0))]
    (layer,) = make_predictions(layers=1)
    losses = run(SETTINGS[name], [layer], targets)
    assert (losses["loss_class"].item(), losses["loss_iou"].item()) == (0.0, 0.0)
    losses["total"].backward()
    assert not layer.class_logits.grad.any() and not layer.iou_logits.grad.any()


@pytest.mark.parametrize("name", SETTINGS)
def test_matched_queries_learn_the_same_where_no_class_is_certain(name):
    targets = make_targets(counts=(6, 6))
    first = run(SETTINGS[name], make_predictions(), targets)
    second = run(SETTINGS[name], make_predictions(), [replace(t, is_certain=certain(0, 0, 0)) for t in targets])
    assert {key: value.item() for key, value in first.items()} == {key: value.item() for key, value in second.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_certain_classes_that_are_all_change_no_loss(name):
    first = run(SETTINGS[name], make_predictions(), make_targets())
    marked = [replace(target, is_certain=certain(1, 1, 1)) for target in make_targets()]
    second = run(SETTINGS[name], make_predictions(), marked)
    assert {key: value.item() for key, value in first.items()} == {key: value.item() for key, value in second.items()}


def test_queries_without_a_segment_are_taught_away_from_certain_classes_only():
    targets = [replace(target, is_certain=certain(1, 0, 0)) for target in make_targets(counts=(0, 0))]
    (layer,) = make_predictions(layers=1)
    loss = run(SETTINGS["maps"], [layer], targets)["loss_class"]
    # The mean over queries of -log(1 - p of the only certain class).
    expected = -torch.log1p(-layer.class_logits.softmax(-1)[..., 0]).mean()
    assert loss.item() == pytest.approx(2.0 * expected.item(), rel=1e-5)
    loss.backward()
    assert (layer.class_logits.grad[..., 0] > 0).all() and (layer.class_logits.grad[..., 1:] < 0).all()


@pytest.mark.parametrize("flags", [(0, 0, 0), (1, 0, 1)])
def test_a_sample_that_is_not_exhaustive_leaves_the_others_as_they_are(flags):
    both = make_targets(counts=(3, 2))
    predictions = make_predictions(layers=1)
    alone = run(SETTINGS["maps"], [predictions[0].select(0)], both[:1])
    normalisers = SegmentationLoss(SETTINGS["maps"])
    marked = [both[0], replace(both[1], is_certain=certain(*flags))]
    together = normalisers(predictions, marked)
    rest = run(SETTINGS["maps"], [predictions[0].select(1)], marked[1:])
    # Sums of losses: each loss times what it was divided by.
    own, other = 3 + 0.1 * 3, 2 + 0.1 * 4 * any(flags)
    expected = (alone["loss_class"] * own + rest["loss_class"] * other) / (own + other)
    assert together["loss_class"].item() == pytest.approx(expected.item(), rel=1e-5)
    other = 2
    expected = (alone["loss_iou"] * own + rest["loss_iou"] * other) / (own + other)
    assert together["loss_iou"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("flags", [None, (0, 0, 0), (1, 0, 1)])
def test_divisors_counted_before_matching_are_those_of_the_loss(flags):
    targets = [*make_targets(), *make_targets(counts=(1, 9))]
    flags = None if flags is None else certain(*flags)
    targets = [replace(targets[0], is_certain=flags), targets[1], replace(targets[2], is_certain=flags), targets[3]]
    settings = SETTINGS["maps"]
    counts = count_targets(targets, num_queries=6, is_matched=True, settings=settings)
    predictions = make_predictions(batch=4)
    given = SegmentationLoss(settings)(predictions, targets, normalisers=Normalisers.shared(counts, settings))
    own = SegmentationLoss(settings)(predictions, targets)
    assert {key: value.item() for key, value in own.items()} == {key: value.item() for key, value in given.items()}


def test_certain_classes_of_a_foreign_label_space_are_refused():
    targets = [replace(target, is_certain=certain(0, 1)) for target in make_targets()]
    with pytest.raises(ValueError, match=r"targets\[0\].is_certain has 2 flags but class_embeds name 3 classes"):
        run(SETTINGS["maps"], make_predictions(), targets)
