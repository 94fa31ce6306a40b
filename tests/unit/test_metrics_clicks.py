"""The robot user's clicks and the figures over them, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omg_transformers.metrics.clicks import Click, ClickMetric, RobotUser, click_through


def square(top, left, side, size=(12, 16)):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_the_first_click_is_the_middle_of_the_object():
    assert RobotUser(square(2, 5, 5)).next_click() == Click(7, 4, True)


def test_the_first_of_equally_deep_pixels_in_row_order_is_clicked():
    assert RobotUser(square(2, 5, 4)).next_click() == Click(6, 3, True)


def test_the_border_of_the_picture_ends_an_error():
    assert RobotUser(np.ones((5, 5), bool)).next_click() == Click(2, 2, True)


def test_depth_is_euclidean():
    truth = np.zeros((9, 20), bool)
    truth[2:7, 1:6] = True
    truth[1:8, 9:16] = True
    truth[[1, 1, 7, 7], [9, 15, 9, 15]] = False
    robot = RobotUser(truth)
    # Both have a middle that is 3 or more steps from the outside; the rounded one is wider.
    assert robot.next_click() == Click(12, 4, True)


def test_the_deeper_error_is_clicked():
    truth, mask = square(0, 0, 6), square(5, 9, 7)
    robot = RobotUser(truth)
    assert robot.next_click(mask) == Click(12, 8, False)
    assert robot.next_click(square(9, 13, 3)) == Click(2, 2, True)


def test_what_is_missed_wins_only_if_strictly_deeper():
    truth, mask = square(0, 0, 5), square(6, 9, 5)
    assert RobotUser(truth).next_click(mask) == Click(11, 8, False)
    assert RobotUser(square(0, 0, 7)).next_click(mask) == Click(3, 3, True)


def test_no_pixel_is_clicked_twice():
    robot = RobotUser(square(4, 4, 2))
    clicks = [robot.next_click() for _ in range(5)]
    assert [(click.x, click.y) for click in clicks[:4]] == [(4, 4), (5, 4), (4, 5), (5, 5)]
    assert clicks[4] is None
    assert len(robot.clicks) == 4


def test_a_right_mask_needs_no_click():
    truth = square(2, 5, 5)
    assert RobotUser(truth).next_click(truth) is None
    assert RobotUser(np.zeros((0, 0), bool)).next_click() is None


def test_errors_on_ignored_pixels_are_no_errors():
    truth, ignore = square(2, 5, 5), square(2, 5, 5) | square(9, 0, 3)
    robot = RobotUser(truth, ignore)
    assert robot.next_click(square(9, 0, 3)) is None
    assert robot.iou(square(0, 13, 1)) == 0.0
    assert RobotUser(truth, square(9, 0, 3)).iou(truth | square(9, 0, 3)) == 1.0


def test_clicks_go_on_until_the_mask_is_good_enough():
    truth = square(2, 4, 6)

    def grow(clicks):
        mask = np.zeros_like(truth)
        for click in clicks:
            mask[max(0, click.y - 1) : click.y + 2, max(0, click.x - 1) : click.x + 2] = True
        return mask & truth

    ious = click_through(grow, RobotUser(truth), stop_at=0.85)
    assert ious[0] == 9 / 36
    assert ious == sorted(ious)
    assert ious[-2] < 0.85 <= ious[-1]
    assert len(click_through(grow, RobotUser(truth), max_clicks=2)) == 2
    assert click_through(grow, RobotUser(truth))[-1] == 1.0


def test_the_number_of_clicks_is_that_of_the_first_good_enough_mask():
    metric = ClickMetric(max_clicks=5, thresholds=(0.85, 0.9))
    metric.update([0.5, 0.86, 0.7, 0.95])
    metric.update([0.1] * 5)
    assert metric.clicks_needed(0.85).tolist() == [2, 5]
    figures = metric.compute()
    assert figures["noc_85"] == 3.5
    assert figures["noc_90"] == 4.5
    assert figures["over_max_85"] == 1


def test_reaching_the_threshold_with_the_last_click_counts_as_over_max():
    metric = ClickMetric(max_clicks=2, thresholds=(0.9,))
    metric.update([0.5, 0.95])
    assert metric.compute()["over_max_90"] == 1


def test_clicks_after_the_last_allowed_one_do_not_count():
    metric = ClickMetric(max_clicks=2, thresholds=(0.9,))
    metric.update([0.5, 0.6, 0.95])
    assert metric.compute()["noc_90"] == 2
    assert metric.per_object()[0]["clicks"] == 2


def test_the_last_iou_stands_for_clicks_that_were_not_made():
    metric = ClickMetric(after_clicks=(1, 3))
    metric.update([0.25, 0.75])
    metric.update([0.5, 0.5, 0.25])
    figures = metric.compute()
    assert (figures["iou_1"], figures["iou_3"]) == (0.375, 0.5)


def test_thresholds_are_compared_in_single_precision():
    metric = ClickMetric(thresholds=(0.9,))
    metric.update([0.9 - 1e-12])
    assert metric.compute()["noc_90"] == 1


def test_the_table_has_a_row_per_object():
    metric = ClickMetric(thresholds=(0.85,))
    metric.update([0.5, 0.875], name="cat")
    assert metric.per_object() == [{"name": "cat", "clicks": 2, "first_iou": 0.5, "last_iou": 0.875, "noc_85": 2}]


def test_merged_parts_equal_the_whole():
    whole, part, rest = (ClickMetric() for _ in range(3))
    for metric, ious in ((whole, [0.5, 0.9]), (part, [0.5, 0.9]), (whole, [0.2]), (rest, [0.2])):
        metric.update(ious)
    part.merge(rest)
    assert part.compute() == whole.compute()
    assert part.per_object() == whole.per_object()
    with pytest.raises(ValueError, match="same settings"):
        part.merge(ClickMetric(max_clicks=10))


def test_nothing_counted_is_nan():
    figures = ClickMetric(thresholds=(0.9,), after_clicks=(1,)).compute()
    assert math.isnan(figures["iou_1"])
    assert math.isnan(figures["noc_90"])
    assert figures["over_max_90"] == 0


@pytest.mark.parametrize("ious", [[], [[0.5]], [0.5, math.nan], [1.5], [-0.1]])
def test_bad_ious_are_refused_with_the_name_of_the_object(ious):
    metric = ClickMetric()
    with pytest.raises(ValueError, match="cat: "):
        metric.update(ious, name="cat")
    assert metric.ious == []


@pytest.mark.parametrize("options", [{"max_clicks": 0}, {"thresholds": (90,)}, {"after_clicks": (0,)}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ClickMetric(**options)


def test_masks_that_do_not_fit_are_refused():
    robot = RobotUser(square(2, 2, 3))
    with pytest.raises(ValueError, match=r"mask has shape \(3, 4\): expected \(12, 16\), as the truth"):
        robot.next_click(np.zeros((3, 4), bool))
    with pytest.raises(TypeError, match="truth has dtype float64: expected bool"):
        RobotUser(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="one frame of a clip"):
        RobotUser(np.zeros((2, 3, 4), bool))
