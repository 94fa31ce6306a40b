"""The faults that the data doctor knows: how grave each is, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. title: what it is, for people. advice: what to do."""

    severity: Severity
    title: str
    advice: str


KINDS: dict[str, Kind] = {
    "cannot_open": Kind("error", "split that cannot be opened", "read what the reader says; nothing of it was checked"),
    "unusable_sample": Kind("error", "sample that cannot be used", "read what the reader says, mend or remove it"),
    "missing_file": Kind("error", "file or entry that is not there", "put it there, or remove what refers to it"),
    "broken_file": Kind("error", "damaged file", "fetch or export it again"),
    "size_differs": Kind("error", "picture and annotation of different sizes", "export one of them again"),
    "category_not_listed": Kind("error", "category that the list lacks", "add it to the list, or correct the ids"),
    "id_without_class": Kind("error", "value that stands for no class", "name it, call it void, or correct the ids"),
    "outside_picture": Kind("error", "outline outside the picture", "coordinates are pixels of this picture (x, y)"),
    "duplicated_id": Kind("error", "id used twice", "give each picture and each object an id of its own"),
    "leakage": Kind("error", "the same file in two splits", "figures on these pictures mean nothing: remove them"),
    "off_by_one": Kind(
        "warning", "ids shifted by one (suspected)", "look at the pictures: are classes called by the next one's name?"
    ),
    "void_as_class": Kind(
        "warning", "class whose name means void", "call its id void, or it is taught and judged as a class"
    ),
    "empty_picture": Kind("warning", "nothing annotated", "is it meant as a picture without objects?"),
    "all_void": Kind("warning", "void everywhere", "remove it: nothing can be learnt or judged there"),
    "duplicated_picture": Kind("warning", "the same picture twice in a split", "keep one, with all its objects"),
    "similar_in_splits": Kind("warning", "near-identical pictures in two splits", "keep such pictures in one split"),
    "duplicated_segment": Kind("warning", "object annotated twice", "keep one of the two masks"),
    "empty_segment": Kind("warning", "object without a pixel", "remove it, or mend its outline"),
    "polygon_outside": Kind("warning", "outline that leaves the picture", "it is cut off at the border"),
    "box_disagrees": Kind("warning", "stated box and mask differ", "compute boxes from the masks"),
    "area_disagrees": Kind("warning", "stated area and mask differ", "compute areas from the masks"),
    "turned_picture": Kind(
        "warning", "picture that viewers turn (EXIF)", "store it turned, or be sure that it was annotated as stored"
    ),
    "track_jump": Kind("warning", "track that jumps", "is it still the same object?"),
    "track_area_jump": Kind("warning", "track whose area jumps", "is the mask whole, and of the same object?"),
    "track_changes_id": Kind("warning", "object that goes on under another id", "give both parts one id"),
    "track_gap": Kind("note", "track with a gap", "hidden for a while, or forgotten?"),
    "tiny_segment": Kind("note", "mask of a pixel or two", "a slip of the hand?"),
    "fills_picture": Kind("note", "thing that fills the picture", "is the mask inverted?"),
    "mixed_sizes": Kind("note", "unusual mixture of sizes", "were some pictures resized?"),
    "similar_pictures": Kind("note", "near-identical pictures in a split", "frames of one video, or copies?"),
    "split_inside_split": Kind("note", "split that is part of another", "never judge on it what was trained on both"),
    "unannotated_frames": Kind("note", "frames that nobody annotated", "they count as void"),
    "picture_not_listed": Kind("note", "pictures that no annotation mentions", "they are not used"),
    "not_exhaustive": Kind("note", "objects left out on purpose", "precision and AP mislead"),
    "unused_class": Kind("note", "classes that never occur", "nothing can be learnt or judged about them"),
    "much_void": Kind("note", "large share of void", "these pixels are neither learnt nor judged"),
    "few_samples_checked": Kind("note", "not everything was checked", "run without a limit"),
}

# What readers say, and which kind of fault it is. The first that fits counts.
_SAYINGS = (
    (r"`(images|videos)` does not list", "missing_file"),
    (r"does not list|not listed|not in the list|do not list|is not among", "category_not_listed"),
    (r"stands? for no class|no class with the|holds the classes|holds the values", "id_without_class"),
    (r"outside the picture", "outside_picture"),
    (r"not valid JSON|broken RLE|cannot be decoded|not a readable|no readable|damaged|cut short", "broken_file"),
    (r"(high|wide).*(high|wide)|RLE of size|do not add up|they must agree|one size", "size_differs"),
    (r"twice|more than once", "duplicated_id"),
    (r"has no pixel", "empty_segment"),
    (r"does not exist|not there|is missing|lacks PNGs|does not hold|no such file", "missing_file"),
)


def kind_of_error(error: BaseException) -> str:
    """The kind of fault that a reader's error tells of; "unusable_sample" when its words are new."""
    if isinstance(error, FileNotFoundError):
        return "missing_file"
    text = str(error)
    return next((kind for words, kind in _SAYINGS if re.search(words, text, re.IGNORECASE)), "unusable_sample")


def in_words(error: Exception) -> str:
    """What an error says, in one line; its type as well where it is none that readers raise on purpose."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


def numbers_without_class(message: str) -> list[int]:
    """The ids in a reader's error about ids that stand for no class; none when it names none."""
    found = re.search(r"(?:values?|categor(?:y|ies)|class(?:es)?|ids?)\s+((?:-?\d+(?:, | and )?)+)", message)
    return [] if found is None else [int(number) for number in re.findall(r"-?\d+", found[1])]
