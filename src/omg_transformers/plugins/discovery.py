"""Find task heads and query encoders through entry points. A broken plug-in costs only itself."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from omg_transformers.plugins.contract import API_VERSION, HeadSpec, TaskHead

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torch import nn

    from omg_transformers.structures import AnnotationPart

HEAD_GROUP = "omg_transformers.task_heads"
QUERY_ENCODER_GROUP = "omg_transformers.query_encoders"
CORE_QUERY_TYPES = ("learned", "prompt")
HEADS_VARIABLE = "OMG_HEADS"

PluginT = TypeVar("PluginT")


class PluginLoadError(RuntimeError):
    """A plug-in is installed but cannot be used. The message names its distribution, version and object."""


class HeadLoadError(PluginLoadError):
    """A task head, or the query encoder that a head brings, is installed but cannot be used."""


@dataclass(frozen=True, slots=True)
class PluginOrigin:
    """Where a plug-in comes from. value: its entry point, "module:object"."""

    distribution: str
    version: str
    value: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.value})"


class _Refusal(Exception):  # noqa: N818 it never leaves this module
    """A loaded object does not keep the contract; the message follows the plug-in's name and origin."""


class _PluginGroup(Generic[PluginT]):
    """The plug-ins of one entry-point group: names are read at once, each object is imported when asked for."""

    def __init__(self, group: str, noun: str, admit: Callable[[str, Any], PluginT]) -> None:
        self._group, self._noun, self._admit = group, noun, admit
        self._path: tuple[str, ...] | None = None
        self._points: dict[str, dict[PluginOrigin, EntryPoint]] = {}
        self._loaded: dict[tuple[str, PluginOrigin], PluginT] = {}
        self._failed: dict[tuple[str, PluginOrigin], tuple[str, BaseException | None]] = {}

    def points(self, *, rescan: bool = False) -> dict[str, dict[PluginOrigin, EntryPoint]]:
        path = tuple(sys.path)
        if path != self._path:  # other folders may hold another plug-in of the same name, or what a broken one lacked
            self._loaded, self._failed = {}, {}
        if rescan or path != self._path:
            points: dict[str, dict[PluginOrigin, EntryPoint]] = {}
            for point in entry_points(group=self._group):
                points.setdefault(point.name, {})[_origin(point)] = point
            self._points, self._path = points, path
        return self._points

    def origin(self, name: str) -> PluginOrigin:
        points = self.points()
        if name not in points:  # it may have been installed since the last look
            points = self.points(rescan=True)
        if name not in points:
            nearest = difflib.get_close_matches(str(name), points, n=1, cutoff=0.5)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            installed = ", ".join(sorted(points)) or "none"
            raise LookupError(f"no {self._noun} is named {name!r}. Installed: {installed}.{hint}")
        rivals = points[name]
        if len(rivals) > 1:
            origins = " and by ".join(sorted(map(str, rivals)))
            raise HeadLoadError(f"{self._noun} {name!r} is provided twice: by {origins}. Uninstall one of them.")
        return next(iter(rivals))

    def load(self, name: str) -> PluginT:
        origin = self.origin(name)
        key = (name, origin)
        if key not in self._loaded and key not in self._failed:
            try:
                self._loaded[key] = self._admit(name, self._points[name][origin].load())
            except _Refusal as refusal:
                self._failed[key] = (f"{refusal}", None)
            except (Exception, SystemExit) as error:  # noqa: BLE001 a stranger's import may raise anything; it is kept
                self._failed[key] = (f"failed to load: {type(error).__name__}: {error}", error)
        if key in self._failed:
            reason, cause = self._failed[key]
            raise HeadLoadError(f"{self._noun} {name!r} from {origin} {reason}") from cause
        return self._loaded[key]


def _origin(point: EntryPoint) -> PluginOrigin:
    distribution = point.dist
    if distribution is None:
        return PluginOrigin("(no distribution)", "(no version)", point.value)
    metadata = distribution.metadata
    fields = {key: metadata[key] for key in metadata}
    # A damaged installation may lack either field.
    return PluginOrigin(fields.get("Name", "(no name)"), fields.get("Version", "(no version)"), point.value)


def _admit_head(name: str, factory: Any) -> TaskHead:
    head = factory()
    version = getattr(head, "api_version", None)
    if version != API_VERSION:
        newer = isinstance(version, int) and version > API_VERSION
        step = "upgrade omg-transformers" if newer else "upgrade its distribution"
        raise _Refusal(f"has api_version {version!r}, this release needs {API_VERSION}: {step}.")
    members = ("spec", "targets", "postprocess", "metric", "example_annotation")
    missing = [member for member in members if not hasattr(head, member)]
    if missing:
        raise _Refusal(f"lacks {', '.join(missing)}, which omg_transformers.plugins.TaskHead asks for.")
    _check_spec(name, head.spec)
    return head


def _check_spec(name: str, spec: Any) -> None:
    if not isinstance(spec, HeadSpec):
        raise _Refusal(f"has a spec of type {type(spec).__name__}: expected omg_transformers.plugins.HeadSpec.")
    if spec.name != name:
        raise _Refusal(f"calls itself {spec.name!r} in its spec: entry point and spec.name must be equal.")
    known = {*CORE_QUERY_TYPES, *_ENCODERS.points(rescan=True)}
    if spec.query_type not in known:
        raise _Refusal(
            f"asks for query type {spec.query_type!r}, which no installed distribution provides. "
            f"Known: {', '.join(sorted(known))}. Install its query encoder (entry-point group {QUERY_ENCODER_GROUP!r})."
        )


def _admit_query_encoder(name: str, encoder: Any) -> type[nn.Module]:
    from torch import nn

    if name in CORE_QUERY_TYPES:
        raise _Refusal("takes the name of a query type of the core: choose another.")
    if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
        raise _Refusal(f"is {encoder!r}: expected a subclass of torch.nn.Module.")
    return encoder


_HEADS = _PluginGroup(HEAD_GROUP, "task head", _admit_head)
_ENCODERS = _PluginGroup(QUERY_ENCODER_GROUP, "query encoder", _admit_query_encoder)


def _wanted_heads() -> list[str] | None:
    """What $OMG_HEADS lists; None when it is not set or empty: every head is wanted."""
    names = [name.strip() for name in os.environ.get(HEADS_VARIABLE, "").split(",")]
    return [name for name in names if name] or None


def available_heads() -> list[str]:
    """Sorted names of the installed heads, narrowed by $OMG_HEADS ("semantic,instance"). Imports nothing."""
    wanted = _wanted_heads()
    return sorted(name for name in _HEADS.points(rescan=True) if wanted is None or name in wanted)


def load_head(name: str) -> TaskHead:
    """Import one head and check that it keeps the contract; the same object each time.

    LookupError: no such head, or $OMG_HEADS leaves it out. HeadLoadError: it is installed but cannot be used.
    """
    wanted = _wanted_heads()
    if wanted is not None and name not in wanted and name in _HEADS.points():
        raise LookupError(
            f"task head {name!r} is installed, but {HEADS_VARIABLE}={os.environ[HEADS_VARIABLE]!r} leaves it out: "
            f"add it there or unset {HEADS_VARIABLE}."
        )
    return _HEADS.load(name)


def heads_that_read(parts: Collection[AnnotationPart], *, is_video: bool) -> tuple[str, ...]:
    """Sorted names of the heads that annotations with these parts serve. Loads all heads; broken ones are left out."""
    found = []
    for name in available_heads():
        try:
            spec = load_head(name).spec
        except (HeadLoadError, LookupError):
            continue
        if spec.is_video == is_video and set(spec.reads) <= set(parts):
            found.append(name)
    return tuple(found)


def failed_heads() -> dict[str, str]:
    """Each wanted head that cannot be used, with the reason. Loads them all: for `omg-seg doctor`."""
    reasons = {}
    for name in sorted({*available_heads(), *(_wanted_heads() or [])}):
        try:
            load_head(name)
        except (HeadLoadError, LookupError) as error:
            reasons[name] = str(error)
    return reasons


def head_origin(name: str) -> PluginOrigin:
    """Distribution, version and entry point of a head, without importing it.

    LookupError: no such head. HeadLoadError: two distributions provide it.
    """
    return _HEADS.origin(name)


def available_query_encoders() -> list[str]:
    """Sorted names of the query types that plug-ins bring; the core's own are not listed. Imports nothing."""
    return sorted(_ENCODERS.points(rescan=True))


def load_query_encoder(name: str) -> type[nn.Module]:
    """Import the class of one query encoder, to be built as `encoder(hidden_size=D, **options)`.

    LookupError: no such encoder. HeadLoadError: it is installed but cannot be used.
    """
    return _ENCODERS.load(name)


def failed_query_encoders() -> dict[str, str]:
    """Each query encoder that cannot be used, with the reason. Loads them all: for `omg-seg doctor`."""
    reasons = {}
    for name in available_query_encoders():
        try:
            load_query_encoder(name)
        except HeadLoadError as error:
            reasons[name] = str(error)
    return reasons


def query_encoder_origin(name: str) -> PluginOrigin:
    """Distribution, version and entry point of a query encoder, without importing it.

    LookupError: no such encoder. HeadLoadError: two distributions provide it.
    """
    return _ENCODERS.origin(name)
