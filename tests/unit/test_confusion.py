"""Which classes are taken for which: counts by hand, and the picture that shows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers.metrics.confusion import PixelConfusion
from omg_transformers.metrics.semantic import MeanIoU
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments
from omg_transformers.visualization.confusion import _table, draw_confusion

CAT, DOG, GRASS = range(3)
NOTHING = 3
IS_THING = (True, True, False)
WIDTH = 8


def columns(*places: int, num_frames: int = 1):
    """A mask of whole columns of a picture 1 pixel high, in every frame."""
    mask = torch.zeros(num_frames, 1, WIDTH, dtype=torch.bool)
    mask[..., list(places)] = True
    return encode_masks(mask)


def truth(*segments: Segment, void=(None,)) -> Annotation:
    return Annotation((1, WIDTH), IS_THING, segments, void)


def painted(*classes: int) -> Segments:
    """A result without overlaps: the class of each column, -1 for nothing."""
    id_map = torch.tensor(classes, dtype=torch.int32).reshape(1, 1, WIDTH) + 1
    labels = torch.tensor(sorted({label for label in classes if label >= 0}), dtype=torch.int64)
    return Segments((1, WIDTH), labels + 1, labels, torch.ones(len(labels)), id_map)


def scored(*results) -> Segments:
    """A result that may overlap, from (class, score, columns)."""
    return Segments(
        (1, WIDTH),
        torch.arange(1, len(results) + 1),
        torch.tensor([label for label, _, _ in results], dtype=torch.int64),
        torch.tensor([score for _, score, _ in results]),
        rles=tuple(columns(*places) for _, _, places in results),
    )


def cells(confusion: PixelConfusion) -> dict[tuple[int, int], int]:
    """The cells that are not zero."""
    rows, found = np.nonzero(confusion.matrix)
    return {
        (int(row), int(column)): int(confusion.matrix[row, column]) for row, column in zip(rows, found, strict=True)
    }


def counted(prediction: Segments, annotation: Annotation) -> dict[tuple[int, int], int]:
    confusion = PixelConfusion(3)
    confusion.update(prediction, annotation)
    return cells(confusion)


def test_pixels_are_counted_by_true_and_predicted_class():
    annotation = truth(Segment(CAT, columns(0, 1, 2)), Segment(GRASS, columns(3, 4, 5)))
    found = counted(painted(CAT, CAT, DOG, GRASS, GRASS, -1, GRASS, -1), annotation)
    assert found == {
        (CAT, CAT): 2,
        (CAT, DOG): 1,
        (GRASS, GRASS): 2,
        (GRASS, NOTHING): 1,
        (NOTHING, GRASS): 1,
        (NOTHING, NOTHING): 1,
    }


def test_void_crowds_and_segments_without_a_class_do_not_count():
    annotation = truth(Segment(CAT, columns(0, 1), is_crowd=True), Segment(-1, columns(2)), void=columns(3, 4))
    assert counted(painted(DOG, DOG, DOG, DOG, DOG, DOG, -1, -1), annotation) == {
        (NOTHING, DOG): 1,
        (NOTHING, NOTHING): 2,
    }


def test_a_single_object_counts_where_it_covers_a_crowd_or_void():
    annotation = truth(
        Segment(CAT, columns(0, 1)), Segment(CAT, columns(*range(WIDTH)), is_crowd=True), void=columns(*range(WIDTH))
    )
    assert counted(painted(DOG, CAT, *[DOG] * 6), annotation) == {(CAT, DOG): 1, (CAT, CAT): 1}


def test_of_overlapping_results_the_best_score_wins_and_the_first_of_equals():
    annotation = truth(Segment(CAT, columns(*range(WIDTH))))
    results = [(DOG, 0.5, (0, 1)), (CAT, 0.9, (1, 2)), (DOG, 0.9, (2, 3))]
    for ordered, expected in ((results, {(CAT, CAT): 2}), (results[::-1], {(CAT, CAT): 1})):
        found = counted(scored(*ordered), annotation)
        assert found[CAT, CAT] == expected[CAT, CAT]
        assert found[CAT, DOG] == 4 - expected[CAT, CAT]
        assert found[CAT, NOTHING] == 4


def test_instances_are_compared_with_things_only():
    things = (Segment(CAT, columns(0, 1)),)
    stuff = (Segment(GRASS, columns(2, 3, 4, 5, 6, 7)),)
    prediction = scored((CAT, 0.9, (0,)), (DOG, 0.8, (2,)), (GRASS, 1.0, tuple(range(WIDTH))), (-1, 1.0, (0, 1, 2)))
    expected = {(CAT, CAT): 1, (CAT, NOTHING): 1, (NOTHING, DOG): 1, (NOTHING, NOTHING): 5}
    assert counted(prediction, truth(*things, *stuff)) == expected
    assert counted(prediction, truth(*things)) == expected


def test_no_results_are_all_missed():
    annotation = truth(Segment(CAT, columns(0, 1)))
    none = torch.zeros(0)
    expected = {(CAT, NOTHING): 2, (NOTHING, NOTHING): 6}
    assert counted(Segments((1, WIDTH), none.long(), none.long(), none, rles=()), annotation) == expected
    assert counted(painted(*[-1] * WIDTH), annotation) == expected


def test_a_clip_counts_like_its_frames():
    masks = columns(0, 1)[0], None
    clip = Annotation((1, WIDTH), IS_THING, (Segment(CAT, masks),), (None, columns(*range(4))[0]))
    frames = [painted(CAT, *[-1] * 7), painted(*[DOG] * WIDTH)]
    both = Segments(
        (1, WIDTH),
        torch.tensor([1, 2]),
        torch.tensor([CAT, DOG]),
        torch.ones(2),
        torch.cat([frame.id_map for frame in frames]),
    )
    expected = {(CAT, CAT): 1, (CAT, NOTHING): 1, (NOTHING, NOTHING): 6, (NOTHING, DOG): 4}
    assert counted(both, clip) == expected
    overlapping = Segments(
        (1, WIDTH),
        both.ids,
        both.labels,
        both.scores,
        rles=((columns(0)[0], None), (None, columns(*range(WIDTH))[0])),
    )
    assert counted(overlapping, clip) == expected


def test_the_classes_that_are_annotated_agree_with_the_mean_iou():
    generator = np.random.default_rng(0)
    confusion, metric = PixelConfusion(3), MeanIoU(3)
    for _ in range(5):
        classes = generator.integers(-1, 3, WIDTH)
        annotation = truth(
            *(Segment(label, columns(*np.flatnonzero(classes == label).tolist())) for label in range(3)),
            void=columns(*np.flatnonzero(classes < 0).tolist()),
        )
        prediction = painted(*generator.integers(-1, 3, WIDTH).tolist())
        confusion.update(prediction, annotation)
        metric.update(prediction, annotation)
    assert (confusion.matrix[:-1] == metric.confusion).all()


def test_merged_counts_are_those_of_one_pass():
    annotation = truth(Segment(CAT, columns(0, 1)))
    parts = [PixelConfusion(3), PixelConfusion(3)]
    for part in parts:
        part.update(painted(CAT, *[DOG] * 7), annotation)
    parts[0].merge(parts[1])
    assert cells(parts[0]) == {(CAT, CAT): 2, (CAT, DOG): 2, (NOTHING, DOG): 12}


def test_what_does_not_fit_is_refused_and_nothing_is_counted():
    confusion = PixelConfusion(3)
    good = truth(Segment(CAT, columns(0)))
    two_frames = Annotation((1, WIDTH), IS_THING, (), (None, None))
    strange_label = scored((7, 0.5, (0,)))
    strange_class = Segments(
        (1, WIDTH), torch.tensor([1]), torch.tensor([7]), torch.ones(1), torch.ones(1, 1, WIDTH, dtype=torch.int32)
    )
    strange_id = Segments(
        (1, WIDTH), torch.tensor([1]), torch.tensor([0]), torch.ones(1), torch.full((1, 1, WIDTH), 9, dtype=torch.int32)
    )
    nan = scored((CAT, float("nan"), (0,)))
    for prediction, annotation, match in (
        (painted(*[CAT] * WIDTH), Annotation((1, WIDTH), (True,), ()), "the metric counts 3"),
        (painted(*[CAT] * WIDTH), two_frames, "id_map has shape"),
        (scored((CAT, 0.5, (0,))), two_frames, "frames"),
        (scored((CAT, 0.5, (0,))), Annotation((2, 4), IS_THING, ()), "make them equal"),
        (strange_label, good, "label 7"),
        (strange_class, good, "label 7"),
        (strange_id, good, "holds ids 9 to 9"),
        (nan, good, "scores"),
    ):
        with pytest.raises(ValueError, match=match):
            confusion.update(prediction, annotation)
    assert cells(confusion) == {}
    with pytest.raises(ValueError, match="make them equal"):
        confusion.merge(PixelConfusion(4))
    with pytest.raises(ValueError, match="num_classes is 0"):
        PixelConfusion(0)


def table(num_classes: int, **cells: int) -> np.ndarray:
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for place, pixels in cells.items():
        row, column = place.lstrip("c").split("_")
        matrix[int(row), int(column)] = pixels
    return matrix


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def test_classes_that_do_not_occur_are_left_out_of_the_picture():
    few = draw_confusion(table(3, c0_0=5, c1_0=5), names(3))
    assert few.size == draw_confusion(table(30, c0_0=5, c1_0=5), names(30)).size


def test_a_class_that_is_only_predicted_is_a_column_and_no_row():
    shown = _table(table(3, c0_2=5, c1_1=3), names(3))
    assert shown.row_names == ["class 0", "class 1"]
    assert shown.column_names == ["class 0", "class 1", "class 2"]
    assert shown.shares.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert shown.is_right.tolist() == [[True, False, False], [False, True, False]]


def test_nothing_is_the_last_row_and_column_and_right_where_they_meet():
    shown = _table(table(2, c0_2=1, c0_0=3, c2_2=4, c2_1=4), names(2))
    assert shown.row_names == ["class 0", "nothing"]
    assert shown.column_names == ["class 0", "class 1", "nothing"]
    assert shown.shares.tolist() == [[0.75, 0, 0.25], [0, 0.5, 0.5]]
    assert shown.is_right[1].tolist() == [False, False, True]


def test_of_many_classes_the_most_confused_are_shown_and_the_rest_is_one_column():
    matrix = np.diag(np.full(134, 1000))
    matrix[np.arange(20), np.arange(20) + 60] = 30
    matrix[3, 130] = 5
    shown = _table(matrix, names(133))
    assert shown.row_names[:40] == [f"class {index}" for index in [*range(20), *range(60, 80)]]
    assert shown.column_names[-2:] == ["other classes", "nothing"]
    assert shown.num_left_out == 93
    assert shown.shares[3, -2] == 5 / 1035
    assert np.allclose(shown.shares.sum(1), 1)
    image = draw_confusion(matrix, names(133), title="133 classes")
    assert max(image.size) < 2000


def test_right_cells_are_blue_and_wrong_ones_red():
    image = np.asarray(draw_confusion(table(2, c0_0=4, c1_0=4), names(2))).astype(int)
    assert (image[..., 2] - image[..., 0]).max() > 100
    assert (image[..., 0] - image[..., 2]).max() > 100


def test_an_empty_matrix_and_long_names_are_drawn():
    draw_confusion(table(2), names(2), title="empty")
    long = draw_confusion(table(2, c0_0=1, c1_0=2), ["a name that goes on " * 9, "b"])
    assert max(long.size) < 800


@pytest.mark.parametrize(
    ("matrix", "match"),
    [(np.zeros((2, 2), int), "expected \\(3, 3\\)"), (np.zeros((3, 3)), "float64"), (-np.eye(3, dtype=int), "-1")],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix, match):
    with pytest.raises(ValueError, match=match):
        draw_confusion(matrix, names(2))
