"""Every installed head keeps every promise of the conformance kit."""

from omg_transformers.plugins import available_heads, failed_heads
from omg_transformers.testing import head_checks, parametrize_with_head_checks

SHIPPED = ["instance", "interactive", "panoptic", "semantic"]


def test_the_heads_we_ship_are_found_and_load():
    assert [name for name in available_heads() if name in SHIPPED] == SHIPPED
    assert not [name for name in failed_heads() if name in SHIPPED]


@parametrize_with_head_checks(*SHIPPED)
def test_conformance(head, check):
    check(head)


def test_conformance_runs_every_check_on_every_head():
    cases = test_conformance.pytestmark[0].args[1]
    assert len(cases) == len(SHIPPED) * len(head_checks())
