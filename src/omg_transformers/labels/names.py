"""How class names are read: splitting, forgiving comparison, nearest known names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# COCO panoptic's marks for classes that were made by joining others ("tree-merged", "wall-other-merged", "door-stuff").
_SUFFIXES = frozenset({"merged", "other", "stuff"})


def split_names(text: str) -> tuple[str, ...]:
    """The synonyms in one class name of a data set: "Cat_or_Dog", "cat/dog", "cat,dog" all give ("cat", "dog").

    Lower case, underscores become spaces, order and repeats kept as in the original; empty parts are dropped.
    """
    text = text.replace("_or_", ",").replace("/", ",").replace("_", " ").lower()
    parts = (part.strip() for part in text.split(","))
    return tuple(part for part in parts if part)


def clean_name(name: str) -> str:
    """A name as it is written into a prompt: lower case, underscores and runs of space become one space."""
    return " ".join(name.replace("_", " ").lower().split())


def loose_name(name: str) -> str:
    """A name for forgiving comparison: "Tree-merged" and "tree" are equal, so are "T-shirt" and "t shirt".

    Hyphens and underscores become spaces; "merged", "other" and "stuff" at the end are dropped, unless nothing is left.
    """
    words = clean_name(name.replace("-", " ")).split()
    while len(words) > 1 and words[-1] in _SUFFIXES:
        words.pop()
    return " ".join(words)


def nearest_names(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Up to `limit` of the `known` names that are spelled most like `name` or share a word with it, best first."""
    candidates = list(dict.fromkeys(known))
    wanted = loose_name(name)
    by_loose = {loose_name(candidate): candidate for candidate in reversed(candidates)}
    found = [by_loose[near] for near in difflib.get_close_matches(wanted, by_loose, n=limit, cutoff=0.6)]
    words = set(wanted.split())
    sharing = [candidate for loose, candidate in by_loose.items() if words & set(loose.split())]
    return list(dict.fromkeys([*found, *sorted(sharing, key=len)]))[:limit]


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """The end of an error message: ". Nearest known: 'a', 'b'", or nothing when no name comes near."""
    near = nearest_names(name, known)
    return f". Nearest known: {', '.join(repr(candidate) for candidate in near)}" if near else ""
