"""Settings: every mistake in one report, with the nearest good names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from omg_transformers.settings import SettingsError, load_settings, settings_to_dict


@dataclass(frozen=True)
class Part:
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight is {self.weight}: it cannot be negative")


@dataclass(frozen=True)
class Settings:
    steps: int
    rate: float = 1e-3
    kind: Literal["points", "maps"] = "points"
    is_fast: bool = False
    size: tuple[int, int] = (4, 4)
    part: Part = Part()
    parts: list[Part] = field(default_factory=list)
    mix: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    count: int | None = None
    width: int | str = 1
    names: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def write(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def problems(tmp_path, text, *words):
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings, write(tmp_path, text), words)
    return caught.value.problems


def test_a_full_file_is_read(tmp_path):
    text = """
steps: 5
rate: 1e-4
kind: maps
is_fast: true
size: [8, 6]
part: {weight: 2, name: a}
parts: [{weight: 0.5}, {name: b}]
mix: {one: 1, two: 0.25}
folder: some/where
count: 3
width: wide
names: [x, y]
extra: {free: [1, {deep: true}]}
"""
    settings = load_settings(Settings, write(tmp_path, text))
    assert settings == Settings(
        5, 1e-4, "maps", True, (8, 6), Part(2.0, "a"), [Part(0.5), Part(1.0, "b")], {"one": 1.0, "two": 0.25},
        Path("some/where"), 3, "wide", ("x", "y"), {"free": [1, {"deep": True}]},
    )  # fmt: skip


def test_words_change_nested_values_and_list_places(tmp_path):
    file = write(tmp_path, "steps: 1\nparts: [{weight: 1}, {weight: 2}]")
    words = ["parts.1.weight=7", "part.name=new", "mix.one=0.5", "size=[1, 2]", "count=null"]
    settings = load_settings(Settings, file, words)
    assert settings.parts[1].weight == 7.0
    assert (settings.part.name, settings.mix, settings.size, settings.count) == ("new", {"one": 0.5}, (1, 2), None)


def test_settings_survive_a_round_trip(tmp_path):
    import yaml

    settings = load_settings(Settings, None, ["steps=3", "parts=[{weight: 2}]", "folder=a/b"])
    again = load_settings(Settings, write(tmp_path, yaml.safe_dump(settings_to_dict(settings))))
    assert again == settings


def test_all_mistakes_are_reported_at_once(tmp_path):
    found = problems(
        tmp_path,
        "stepz: 5\nrate: fast\nkind: map\nis_fast: 1\nsize: [1]\n"
        "parts: [{wieght: 2}]\nmix: [1]\ncount: true\nwidth: []",
        "part.name=3",
        "nonsense",
    )
    text = "\n".join(found)
    assert len(found) == 12
    for fragment in (
        "stepz: no such setting; did you mean steps?",
        "steps: is missing",
        "rate: is 'fast': expected a number",
        "kind: is 'map': expected one of 'points', 'maps'; did you mean 'maps'?",
        "is_fast: is 1: expected true or false",
        "size: has 1 values: expected 2",
        "parts.0.wieght: no such setting; did you mean weight?",
        "mix: is [1]: expected `name: value` lines",
        "count: is True: expected a whole number",
        "width: is []: expected a whole number or text",
        "part.name: is 3: expected text",
        "'nonsense': expected key=value",
    ):
        assert fragment in text


def test_a_value_its_own_class_refuses_is_reported_with_its_place(tmp_path):
    assert problems(tmp_path, "steps: 1\nparts: [{}, {weight: -1}]") == (
        "parts.1: weight is -1.0: it cannot be negative",
    )


@pytest.mark.parametrize(
    ("word", "fragment"),
    [
        ("steps.deep=1", "steps: is 1, which has no settings inside"),
        ("parts.4.weight=1", "'4' is no place in a list of 1"),
        ("parts.0=5", "parts.0: is 5: expected `name: value` settings of Part"),
        ("rate=[1", "is not YAML"),
    ],
)
def test_impossible_words_are_named(tmp_path, word, fragment):
    assert any(fragment in line for line in problems(tmp_path, "steps: 1\nparts: [{}]", word))


@pytest.mark.parametrize(("text", "fragment"), [("- 1\n- 2", "holds a list"), ("a: [", "is not YAML")])
def test_files_that_hold_no_settings_are_named(tmp_path, text, fragment):
    assert any(fragment in line for line in problems(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load_settings(Settings, tmp_path / "none.yaml", ["steps=1"])


def test_an_empty_file_leaves_the_defaults(tmp_path):
    assert load_settings(Settings, write(tmp_path, ""), ["steps=2"]) == Settings(2)
