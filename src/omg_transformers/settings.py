"""Settings from a YAML file and `key=value` words into frozen dataclasses; every mistake is reported at once."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

SettingsT = TypeVar("SettingsT")


class SettingsError(ValueError):
    """One or more settings are wrong; the message lists them all. problems: one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        number = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        super().__init__(f"{number} wrong:\n" + "\n".join(f"- {problem}" for problem in problems))


def load_settings(kind: type[SettingsT], file: str | Path | None = None, overrides: Sequence[str] = ()) -> SettingsT:
    """Settings of a dataclass `kind` from a YAML file, changed by words such as "optimizer.learning_rate=1e-4".

    Values of words are YAML; numbers in a key index lists. Raises SettingsError with all mistakes of both.
    """
    problems: list[str] = []
    values = _read_yaml(file, problems) if file is not None else {}
    for word in overrides:
        _override(values, word, problems)
    built = _build(kind, values, "", problems)
    if problems:
        raise SettingsError(problems)
    return typing.cast(SettingsT, built)


def settings_to_dict(settings: Any) -> Any:
    """Plain dicts, lists and scalars, ready for YAML or JSON; `load_settings` reads them back."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: settings_to_dict(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {key: settings_to_dict(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [settings_to_dict(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message: the known names that look alike, or all of them."""
    near = [word for word in known if name and name in word][:3] or difflib.get_close_matches(name, known, 3, 0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"


def _read_yaml(file: str | Path, problems: list[str]) -> dict[str, Any]:
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}): give the path of a YAML file")
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path}: is not YAML: {' '.join(str(error).split())}")
        return {}
    if values is None:
        return {}
    if not isinstance(values, dict):
        problems.append(f"{path}: holds a {type(values).__name__}: expected `name: value` lines")
        return {}
    return values


def _override(values: dict[str, Any], word: str, problems: list[str]) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        problems.append(f"{word!r}: expected key=value, such as optimizer.learning_rate=1e-4")
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(f"{key}: {text!r} is not YAML: {' '.join(str(error).split())}")
        return
    place: Any = values
    *parents, last = key.split(".")
    for depth, name in enumerate(parents):
        place = _step_into(place, name, ".".join(parents[: depth + 1]), problems)
        if place is None:
            return
    if isinstance(place, list):
        index = _list_index(place, last, key, problems)
        if index is not None:
            place[index] = value
    else:
        place[last] = value


def _step_into(place: Any, name: str, key: str, problems: list[str]) -> Any:
    if isinstance(place, list):
        index = _list_index(place, name, key, problems)
        inner = None if index is None else place[index]
        if index is None or isinstance(inner, (dict, list)):
            return inner
    else:
        inner = place.get(name)
        if inner is None:
            inner = place[name] = {}
        if isinstance(inner, (dict, list)):
            return inner
    problems.append(f"{key}: is {inner!r}, which has no settings inside")
    return None


def _list_index(place: list[Any], name: str, key: str, problems: list[str]) -> int | None:
    if name.isdigit() and int(name) < len(place):
        return int(name)
    problems.append(f"{key}: {name!r} is no place in a list of {len(place)}: expected 0 to {len(place) - 1}")
    return None


def _build(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    """`value` as an object of `kind`, or a line in `problems`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, key, problems)
    if origin is Literal:
        return _build_literal(arguments, value, key, problems)
    if origin in (Union, types.UnionType):
        return _build_union(arguments, value, key, problems)
    if origin in (list, tuple, Sequence):
        return _build_sequence(origin, arguments, value, key, problems)
    if origin in (dict, Mapping):
        return _build_mapping(arguments, value, key, problems)
    return _build_scalar(kind, value, key, problems)


def _build_dataclass(kind: type, value: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{key or kind.__name__}: is {value!r}: expected `name: value` settings of {kind.__name__}")
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    before = len(problems)
    unknown = [name for name in value if name not in fields]
    problems.extend(f"{_join(key, name)}: no such setting{nearest(str(name), fields)}" for name in unknown)
    arguments = {name: _build(hints[name], value[name], _join(key, name), problems) for name in fields if name in value}
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and not has_default:
            problems.append(f"{_join(key, name)}: is missing and has no default")
    if len(problems) > before:
        return None
    try:
        return kind(**arguments)
    except (ValueError, TypeError) as error:
        problems.append(f"{key or kind.__name__}: {error}")
        return None


def _build_literal(choices: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    shown = ", ".join(repr(choice) for choice in choices)
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    problems.append(f"{key}: is {value!r}: expected one of {shown}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return None


def _build_union(kinds: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if value is None and type(None) in kinds:
        return None
    attempts = []
    for kind in kinds:
        if kind is type(None):
            continue
        found: list[str] = []
        built = _build(kind, value, key, found)
        if not found:
            return built
        attempts.append(found)
    if len(attempts) == 1:
        problems.extend(attempts[0])
    else:
        names = " or ".join(_name(kind) for kind in kinds)
        problems.append(f"{key}: is {value!r}: expected {names}")
    return None


def _build_sequence(origin: Any, kinds: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, (list, tuple)):
        problems.append(f"{key}: is {value!r}: expected a list, such as [a, b]")
        return None
    if origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis):
        if len(value) != len(kinds):
            problems.append(f"{key}: has {len(value)} values: expected {len(kinds)}")
            return None
        return tuple(
            _build(kind, item, f"{key}.{place}", problems)
            for place, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    kind = kinds[0] if kinds else Any
    items = [_build(kind, item, f"{key}.{place}", problems) for place, item in enumerate(value)]
    return items if origin is list else tuple(items)


def _build_mapping(kinds: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{key}: is {value!r}: expected `name: value` lines")
        return None
    key_kind, value_kind = kinds or (Any, Any)
    return {
        _build(key_kind, name, _join(key, name), problems): _build(value_kind, item, _join(key, name), problems)
        for name, item in value.items()
    }


def _build_scalar(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            # YAML reads 1e-4, without a dot, as text.
            return float(value)
        except (TypeError, ValueError):
            pass
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    problems.append(f"{key}: is {value!r}: expected {_name(kind)}")
    return None


def _name(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(kind) or str(getattr(kind, "__name__", kind))


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
