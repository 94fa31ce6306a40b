"""Every installed head keeps every promise of the conformance kit."""

from omg_transformers.plugins import available_heads, failed_heads
from omg_transformers.testing import head_checks, parametrize_with_head_checks

SHIPPED = {"instance", "interactive", "panoptic", "semantic"}
FOUND = available_heads()


def test_the_heads_we_ship_are_found_and_load():
    assert set(FOUND) >= SHIPPED
    assert failed_heads() == {}


@parametrize_with_head_checks(*FOUND)
def test_conformance(head, check):
    check(head)


def test_conformance_runs_every_check_on_every_head():
    cases = test_conformance.pytestmark[0].args[1]
    assert len(cases) == len(FOUND) * len(head_checks())
