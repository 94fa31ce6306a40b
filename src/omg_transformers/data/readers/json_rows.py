"""Lists of objects in annotation files, checked for what a reader takes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {int: "a whole number", float: "a number", str: "a text", list: "a list"}


def check_rows(rows: Any, kinds: Mapping[str, tuple[type, ...]], *, where: object, noun: str) -> list[dict[str, Any]]:
    """`rows` if it is a list of objects that have these keys with values of these kinds: int, float, str or list.

    noun: what a row is, `where`: the file and perhaps the place in it, for the message. Raises ValueError.
    """
    if not isinstance(rows, list):
        raise ValueError(f"{where}: expected a list, one object per {noun}, found {_shown(rows)}")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {noun} {number} is {_shown(row)}: expected an object{_with(kinds)}")
        for key, allowed in kinds.items():
            value = row.get(key)
            # To Python true is a number.
            if key not in row or not isinstance(value, allowed) or isinstance(value, bool):
                found = f"has {key}={_shown(value)}" if key in row else f"has no {key}"
                wanted = " or ".join(_WORDS[kind] for kind in allowed)
                name = f"{noun} {row['id']}" if key != "id" and "id" in row else f"{noun} number {number}"
                raise ValueError(f"{where}: {name} {found}: expected {wanted}")
    return rows


def _with(kinds: Mapping[str, tuple[type, ...]]) -> str:
    return f" with {', '.join(kinds)}" if kinds else ""


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
