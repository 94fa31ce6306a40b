"""Pictures that are there more than once: the same bytes, or nearly the same look, in a split or across splits."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from omg_transformers.data.doctor.report import Problem
from omg_transformers.data.doctor.samples import Fault
from omg_transformers.data.frames import decode_frame
from omg_transformers.data.sources import SampleError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from numpy.typing import NDArray

    from omg_transformers.structures import Sample

# Pictures are compared at this many grey pixels a side.
LOOK_SIDE = 16
# Mean difference of the grey pixels, of 255, up to which two pictures are nearly the same: another JPEG quality or size
# stays below 1, neighbouring frames of a calm video around 2, other views of one place above 5.
NEAR = 2.0
# A flat picture looks like every other flat one.
MIN_CONTRAST = 6.0
_TURN, _UPRIGHT = 0x0112, 1


class Frame(NamedTuple):
    """Where a picture was seen. place: number of its sample in the split. number: of the frame in the sample."""

    split: str
    place: int
    sample_id: str
    number: int


class PictureIndex:
    """Collects all pictures of a check; 300 bytes each. others: splits of other data sets: only leaks count there."""

    def __init__(self, others: Collection[str] = ()) -> None:
        self._others = frozenset(others)
        self._by_digest: dict[bytes, list[Frame]] = defaultdict(list)
        self._looks: list[NDArray[np.uint8]] = []
        self._looking: list[Frame] = []

    def add(self, sample: Sample, split: str, index: int) -> Iterator[Fault]:
        """Read every frame whole; yields what is wrong with the files themselves."""
        shown = set(np.linspace(0, len(sample.frames) - 1, 3).round().astype(int).tolist())
        for number, frame in enumerate(sample.frames):
            place = Frame(split, index, sample.sample_id, number)
            try:
                look = _look(frame, sample)
                self._by_digest[_digest(frame)].append(place)
            except (SampleError, OSError) as error:
                yield Fault(_kind(error), str(error), number)
                continue
            if _is_turned(frame):
                yield Fault("turned_picture", "its EXIF data turns it, its annotation is not turned", number)
            if number in shown and look.std() >= MIN_CONTRAST:
                self._looks.append(look)
                self._looking.append(place)

    def problems(self, sizes: dict[str, int]) -> Iterator[Problem]:
        """Duplicates and leaks. sizes: number of samples of each split."""
        identical: set[tuple[str, str]] = set()
        shared: dict[tuple[str, str], list[tuple[Frame, Frame]]] = defaultdict(list)
        for places in self._by_digest.values():
            for first, second in _other_samples(places):
                identical.add((_key(first), _key(second)))
                if first.split == second.split:
                    yield from self._problem("duplicated_picture", first, second, "is the same file as")
                else:
                    shared[first.split, second.split].append((first, second))
        for (one, other), pairs in shared.items():
            pairs = _once_per_sample(pairs)
            inner = next((name for name in (one, other) if len(pairs) >= sizes.get(name, 0) > 1), None)
            # A split that is part of another by design (val in trainval) is no leak; another data set is no split.
            if inner is not None and not {one, other} & self._others:
                outer = other if inner == one else one
                yield Problem("split_inside_split", f"all {len(pairs)} samples are in {outer!r} as well", inner)
                continue
            for first, second in pairs:
                yield from self._problem("leakage", first, second, "is the same file as")
        yield from self._similar(identical)

    def _similar(self, identical: set[tuple[str, str]]) -> Iterator[Problem]:
        if len(self._looks) < 2:
            return
        looks = np.stack(self._looks).astype(np.float32)
        # However the difference is spread, no eighth of the picture can differ by more than eight times the mean.
        parts = looks.reshape(len(looks), 2, LOOK_SIDE // 2, 4, LOOK_SIDE // 4).mean((2, 4)).reshape(len(looks), 8)
        pairs = cKDTree(parts).query_pairs(8 * NEAR, p=np.inf, output_type="ndarray")
        told: set[tuple[str, str]] = set()
        for one, other in pairs[np.lexsort(pairs.T[::-1])].tolist():
            first, second = self._looking[one], self._looking[other]
            key = (_key(first), _key(second))
            if key[0] == key[1] or key in identical or key in told:
                continue
            if float(np.abs(looks[one] - looks[other]).mean()) > NEAR:
                continue
            told.add(key)
            kind = "similar_pictures" if first.split == second.split else "similar_in_splits"
            yield from self._problem(kind, first, second, "looks nearly like")

    def _problem(self, kind: str, first: Frame, second: Frame, verb: str) -> Iterator[Problem]:
        """The problem of the second picture; of the first where the second is in another data set."""
        if second.split in self._others:
            first, second = second, first
        if second.split in self._others:
            return
        where = f" of {first.split}" if first.split != second.split else ""
        text = f"it {verb} {first.sample_id}{where}"
        yield Problem(kind, text, second.split, second.sample_id, second.place, second.number)


def _look(frame: bytes | Path | NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    # A JPEG may be decoded at an eighth, but is read to its end.
    reduced = (LOOK_SIDE * 4, LOOK_SIDE * 4)
    picture = decode_frame(frame, name=sample.sample_id, expected_size=sample.annotation.size, at_least=reduced)
    return np.asarray(picture.convert("L").resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BOX))


def _digest(frame: bytes | Path | NDArray[np.uint8]) -> bytes:
    if isinstance(frame, np.ndarray):
        content: Any = np.ascontiguousarray(frame).data
    else:
        content = frame.read_bytes() if isinstance(frame, Path) else frame
    return hashlib.blake2b(content, digest_size=16).digest()


def _is_turned(frame: bytes | Path | NDArray[np.uint8]) -> bool:
    if isinstance(frame, np.ndarray):
        return False
    with Image.open(io.BytesIO(frame) if isinstance(frame, bytes) else frame) as picture:
        return bool(picture.getexif().get(_TURN, _UPRIGHT) != _UPRIGHT)


def _kind(error: Exception) -> str:
    from omg_transformers.data.doctor.kinds import kind_of_error

    return kind_of_error(error)


def _other_samples(places: list[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """The first place with each later one that is in another sample."""
    seen = {_key(places[0])}
    for place in places[1:]:
        if _key(place) not in seen:
            seen.add(_key(place))
            yield places[0], place


def _once_per_sample(pairs: Iterable[tuple[Frame, Frame]]) -> list[tuple[Frame, Frame]]:
    first: dict[str, tuple[Frame, Frame]] = {}
    for pair in pairs:
        first.setdefault(_key(pair[1]), pair)
    return list(first.values())


def _key(frame: Frame) -> str:
    return f"{frame.split}\0{frame.place}"
