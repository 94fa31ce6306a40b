"""The kit lets correct heads pass: with and without classes, learned queries and questions, pictures and clips."""

import pytest
from correct_heads import ClickHead, ClipHead, RegionHead

from omg_transformers.testing import check_task_head, head_checks, parametrize_with_head_checks


@parametrize_with_head_checks(RegionHead(), ClickHead(), ClipHead())
def test_a_correct_head_passes(head, check):
    check(head)


def test_a_correct_head_passes_all_checks_at_once():
    check_task_head(RegionHead())


def test_the_kit_holds_26_checks():
    assert len(head_checks()) == len({check.__name__ for check in head_checks()}) == 26


@pytest.mark.parametrize("check", head_checks(), ids=lambda check: check.__name__)
def test_every_check_says_what_it_promises(check):
    assert check.__doc__
