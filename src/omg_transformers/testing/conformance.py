"""The conformance kit: every check a task head must pass, run one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omg_transformers.plugins import HeadLoadError, TaskHead, load_head
from omg_transformers.testing import contract_checks, question_checks, result_checks

if TYPE_CHECKING:
    from types import ModuleType

    from pytest import MarkDecorator

Check = Callable[[TaskHead], None]


def head_checks() -> list[Check]:
    """All checks, in the order in which they are read best. Each takes a head and raises when it breaks a promise."""
    modules: tuple[ModuleType, ...] = (contract_checks, result_checks, question_checks)
    found = [(module, value) for module in modules for name, value in vars(module).items() if name.startswith("check_")]
    return [check for module, check in found if check.__module__ == module.__name__]


def check_task_head(head: TaskHead, *, expected_failures: Mapping[str, str] | None = None) -> None:
    """Run every check; AssertionError that lists all that failed.

    expected_failures: check name -> reason. Strict: one that passes, or does not exist, is an error too.
    """
    expected = dict(expected_failures or {})
    problems = [f"{name}: listed in expected_failures, but there is no such check" for name in _strangers(expected)]
    for check in head_checks():
        name = check.__name__
        try:
            check(head)
        except Exception as error:  # noqa: BLE001 a plug-in may raise anything; all failures are reported together
            if name not in expected:
                problems.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if name in expected:
                problems.append(f"{name}: listed in expected_failures ({expected[name]}), but it passes")
    if problems:
        spec = getattr(head, "spec", None)
        name = getattr(spec, "name", type(head).__name__)
        raise AssertionError(f"task head {name!r} breaks its contract:\n- " + "\n- ".join(problems))


def _strangers(expected: Mapping[str, str]) -> list[str]:
    return sorted(expected.keys() - {check.__name__ for check in head_checks()})


def parametrize_with_head_checks(
    *heads: str | TaskHead, expected_failures: Mapping[str, str] | None = None
) -> MarkDecorator:
    """Pytest decorator for `test(head, check)`: one test per head and check.

    heads: entry-point names, or heads. A name that does not load gives one failing test, not a collection error.
    expected_failures: check name -> reason; those tests must fail (strict xfail). ValueError: no such check.
    """
    import pytest

    expected = dict(expected_failures or {})
    if strangers := _strangers(expected):
        known = ", ".join(check.__name__ for check in head_checks())
        raise ValueError(f"expected_failures names {', '.join(strangers)}: expected some of {known}")
    cases: list[Any] = []
    for given in heads:
        try:
            head = load_head(given) if isinstance(given, str) else given
        except (HeadLoadError, LookupError) as error:
            cases.append(pytest.param(None, _failing(error), id=f"{given}-loads"))
            continue
        for check in head_checks():
            name = check.__name__
            marks = [pytest.mark.xfail(reason=expected[name], strict=True)] if name in expected else []
            cases.append(pytest.param(head, check, id=f"{head.spec.name}-{name}", marks=marks))
    return pytest.mark.parametrize(("head", "check"), cases)


def _failing(error: Exception) -> Callable[[Any], None]:
    def check_loads(_: Any) -> None:
        raise error

    return check_loads
