"""Lists of objects in annotation files: what is wrong is named, with its place."""

from __future__ import annotations

import pytest

from omg_transformers.data.readers.json_rows import check_rows

KINDS = {"id": (int,), "name": (str,), "video_id": (int, str)}
GOOD = {"id": 3, "name": "cat", "video_id": "v"}


def test_good_rows_are_given_back():
    rows = [GOOD, {**GOOD, "video_id": 4, "more": None}]
    assert check_rows(rows, KINDS, where="file.json", noun="category") is rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"id": 3}, r"file\.json: expected a list, one object per category, found \{'id': 3\}"),
        ([GOOD, 7], r"file\.json: category 1 is 7: expected an object with id, name, video_id"),
        ([{**GOOD, "name": None}], r"file\.json: category 3 has name=None: expected a text"),
        ([{"id": 3, "name": "cat"}], r"file\.json: category 3 has no video_id: expected a whole number or a text"),
        ([{**GOOD, "id": "3"}], r"file\.json: category number 0 has id='3': expected a whole number"),
        ([{**GOOD, "id": True}], r"has id=True: expected a whole number"),
    ],
)
def test_what_is_wrong_is_named(rows, message):
    with pytest.raises(ValueError, match=message):
        check_rows(rows, KINDS, where="file.json", noun="category")
