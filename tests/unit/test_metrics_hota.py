"""HOTA: hand-counted tracks where TrackEval is installed, a clear error where it is not."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.hota import FIGURES, HOTA
from omg_transformers.ops.masks import encode_mask
from omg_transformers.structures import Annotation, Segment, Segments

IS_INSTALLED = importlib.util.find_spec("trackeval") is not None
needs_trackeval = pytest.mark.skipif(not IS_INSTALLED, reason="pip install omg-transformers[hota]")
SIZE = (4, 8)


def half(left):
    mask = np.zeros(SIZE, dtype=bool)
    mask[:, :4] = left
    mask[:, 4:] = not left
    return encode_mask(mask)


LEFT, RIGHT = half(True), half(False)


def result_of(*tracks):
    """(masks, label) of each track."""
    return Segments(
        SIZE,
        torch.arange(1, len(tracks) + 1),
        torch.tensor([label for _, label in tracks]).long(),
        torch.ones(len(tracks)),
        rles=tuple(tuple(masks) for masks, _ in tracks),
    )


def annotation_of(*segments, frames=4):
    return Annotation(SIZE, (True, True, False), tuple(segments), (None,) * frames)


@pytest.mark.skipif(IS_INSTALLED, reason="trackeval is installed")
def test_without_trackeval_the_error_names_the_extra():
    with pytest.raises(ImportError, match=r"pip install omg-transformers\[hota\]"):
        HOTA()


@needs_trackeval
def test_an_id_switch_in_the_middle_halves_the_association():
    truth = annotation_of(Segment(0, (LEFT,) * 4))
    metric = HOTA()
    metric.update(result_of(([LEFT, LEFT, None, None], 0), ([None, None, LEFT, LEFT], 0)), truth)
    figures = metric.compute()
    assert list(figures) == list(FIGURES)
    assert figures["detection_accuracy"] == pytest.approx(1.0)
    assert figures["association_accuracy"] == pytest.approx(0.5)
    assert figures["hota"] == pytest.approx(math.sqrt(0.5))


@needs_trackeval
def test_the_class_plays_no_part_but_has_its_own_figure():
    metric = HOTA()
    metric.update(result_of(([LEFT] * 4, 1)), annotation_of(Segment(0, (LEFT,) * 4)))
    assert metric.compute()["hota"] == pytest.approx(1.0)
    table = metric.per_class()["hota"]
    assert table[:2].tolist() == [0, 0]
    assert np.isnan(table[2])


@needs_trackeval
def test_maps_and_masks_give_the_same():
    ids = torch.zeros((2, *SIZE), dtype=torch.int32)
    ids[:, :, :4] = 1
    ids[1, :, 6:] = 2
    result = Segments(SIZE, torch.tensor([1, 2]), torch.tensor([0, 0]), torch.ones(2), id_map=ids)
    by_masks, by_maps = HOTA(), HOTA()
    by_masks.update(result, annotation_of(Segment(0, (LEFT, LEFT)), Segment(0, (RIGHT, RIGHT)), frames=2))
    truth = np.ones((2, *SIZE), dtype=int)
    truth[:, :, 4:] = 5
    by_maps.update_maps(ids.numpy(), truth)
    assert by_masks.compute() == by_maps.compute()
    assert 0 < by_maps.compute()["hota"] < 1


@needs_trackeval
def test_merged_parts_equal_one_pass_with_and_without_names():
    truth, result = annotation_of(Segment(0, (LEFT,) * 4)), result_of(([LEFT, RIGHT, LEFT, None], 0))
    other = result_of(([LEFT] * 4, 0), ([None, RIGHT, None, None], 1))
    one, first, second = HOTA(), HOTA(), HOTA()
    for key, prediction, part in (("a", result, first), (None, other, second), (None, result, first)):
        one.update(prediction, truth, key=key)
        part.update(prediction, truth, key=key)
    first.merge(second)
    assert first.compute() == pytest.approx(one.compute())
    assert first.per_class()["hota"][:2] == pytest.approx(one.per_class()["hota"][:2])
    assert len(first.per_video()) == 3


@needs_trackeval
def test_a_video_counts_once():
    metric = HOTA()
    metric.update_maps(np.ones((1, 2, 2), int), np.ones((1, 2, 2), int), key="a")
    with pytest.raises(ValueError, match="'a' was scored before"):
        metric.update_maps(np.ones((1, 2, 2), int), np.ones((1, 2, 2), int), key="a")


@needs_trackeval
def test_videos_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="equal"):
        HOTA().update_maps(np.ones((1, 2, 2), int), np.ones((2, 2, 2), int))
    with pytest.raises(ValueError, match="has 1 frames, the annotation 4"):
        HOTA().update(result_of(([LEFT], 0)), annotation_of(Segment(0, (LEFT,) * 4)))
    with pytest.raises(ValueError, match="label 7"):
        HOTA().update(result_of(([LEFT] * 4, 7)), annotation_of(Segment(0, (LEFT,) * 4)))


@needs_trackeval
def test_nothing_scored_has_no_figures():
    assert all(math.isnan(value) for value in HOTA().compute().values())
