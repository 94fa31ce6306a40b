"""From annotations to what the loss compares against: the original's things, then its stuff by class, same masks.

Mended: what nobody labelled (class 65535 of its map) is unknown to the loss, not background. A thing that no pixel of
the mask grid shows is left out.
"""

from __future__ import annotations

import pytest
import torch

from omg_head_interactive import InteractiveHead
from omg_head_panoptic import PanopticHead
from omg_transformers.ops.masks import encode_mask, encode_masks
from omg_transformers.structures import Annotation, Segment

VOID = 65535
FILES = ("loss_points", "loss_whole")
CASES = ("image", "image_ignore", "video")


def frames_of(reference, case, sample):
    """Per frame: labels, masks, ids and class map; the things of pictures are numbered in their order."""
    if case != "video":
        keys = [f"{case}.gt.{sample}"]
    else:
        keys = [f"video.gt.{sample}.{t}" for t in reference.indices(rf"video\.gt\.{sample}\.(\d+)\.labels")]
    for key in keys:
        labels, masks = reference[f"{key}.labels"], reference[f"{key}.masks"]
        ids = reference[f"{key}.ids"] if case == "video" else torch.arange(len(labels))
        yield labels.tolist(), masks, ids.tolist(), reference[f"{key}.sem_seg"]


def annotation_of(reference, case, sample):
    frames = list(frames_of(reference, case, sample))
    settings = reference.meta["config"]
    is_thing = (True,) * settings["things"] + (False,) * settings["stuff"]
    size = tuple(frames[0][3].shape)
    things: dict[int, tuple[int, torch.Tensor]] = {}
    for place, (labels, masks, ids, _) in enumerate(frames):
        for label, mask, number in zip(labels, masks, ids, strict=True):
            clip = things.setdefault(number, (label, torch.zeros((len(frames), *size), dtype=torch.bool)))[1]
            clip[place] = mask
    maps = torch.stack([frame[3] for frame in frames])
    stuff = [label for label in maps.unique().tolist() if settings["things"] <= label < VOID]
    segments = [Segment(things[number][0], encode_masks(things[number][1]), number) for number in sorted(things)]
    segments += [Segment(label, encode_masks(maps == label)) for label in reversed(stuff)]
    return Annotation(size, is_thing, tuple(segments), tuple(encode_mask(part == VOID) for part in maps)), maps


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("case", CASES)
def test_targets_equal_the_original(golden, name, case):
    reference = golden(name)
    samples = reference.indices(rf"{case}\.target\.(\d+)\.labels")
    assert len(samples) == 2
    for sample in samples:
        annotation, maps = annotation_of(reference, case, sample)
        targets = PanopticHead().targets(annotation)
        labels, masks = (reference[f"{case}.target.{sample}.{part}"] for part in ("labels", "masks"))
        masks = masks if masks.dim() == 4 else masks[:, None]
        is_seen = masks.flatten(1).any(1)
        assert torch.equal(targets.labels, labels[is_seen])
        assert torch.equal(targets.masks, masks[is_seen])
        assert torch.equal(targets.unknown, (maps == VOID) & ~masks.any(0))


@pytest.mark.parametrize("name", FILES)
def test_prompts_are_answered_in_their_order(golden, name):
    reference = golden(name)
    samples = reference.indices(r"sam\.target\.(\d+)\.labels")
    assert len(samples) == 2
    for sample in samples:
        labels, masks = (reference[f"sam.gt.{sample}.{part}"] for part in ("labels", "masks"))
        segments = tuple(
            Segment(int(label), encode_masks(mask[None])) for label, mask in zip(labels, masks, strict=True)
        )
        targets = InteractiveHead().targets(Annotation(tuple(masks.shape[-2:]), (), segments))
        is_seen = masks.flatten(1).any(1)
        assert torch.equal(targets.labels, reference[f"sam.target.{sample}.labels"][is_seen])
        assert torch.equal(targets.masks[:, 0], reference[f"sam.target.{sample}.masks"][is_seen])
