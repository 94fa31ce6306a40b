"""Batches: normalised, padded, and void outside the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from omg_transformers.data import ProceduralScenes, collate, pad_annotation
from omg_transformers.data.regions import decode_region
from omg_transformers.labels import LabelSpace


def scene(size, **options):
    return ProceduralScenes(size, **options).sample(0)


def test_pictures_of_two_sizes_share_a_padded_batch():
    samples = [scene((33, 47)), scene((40, 20))]
    batch = collate(samples, task="panoptic")
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert batch["pixel_mask"].dtype == torch.bool
    assert batch["sizes"] == [(33, 47), (40, 20)]
    for mask, (height, width) in zip(batch["pixel_mask"], batch["sizes"], strict=True):
        assert mask[:height, :width].all() and mask.sum() == height * width
    assert batch["task"] == "panoptic" and not batch["is_clip"]
    assert batch["label_space"] is samples[0].label_space


def test_outside_the_picture_everything_is_void():
    sample = scene((33, 47))
    annotation = collate([sample], task="panoptic")["annotations"][0]
    assert annotation.size == (64, 64)
    void = decode_region(annotation.void[0], (64, 64))
    assert void.sum() == 64 * 64 - 33 * 47 and not void[:33, :47].any()
    for before, after in zip(sample.annotation.segments, annotation.segments, strict=True):
        padded = decode_region(after.masks[0], (64, 64))
        assert np.array_equal(padded[:33, :47], decode_region(before.masks[0], (33, 47)))
        assert padded.sum() == padded[:33, :47].sum()


def test_normalisation_is_x_minus_mean_over_std_and_padding_is_zero():
    sample = scene((32, 40))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    pixels = collate([sample], task="panoptic", mean=mean, std=std)["pixel_values"][0]
    expected = (sample.frames[0] / 255 - np.array(mean)) / np.array(std)
    assert np.allclose(pixels[:, :32, :40].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert not pixels[:, :, 40:].any()


def test_clips_get_a_time_axis():
    batch = collate([scene((32, 32), num_frames=3)] * 2, task="video_panoptic")
    assert batch["pixel_values"].shape == (2, 3, 3, 32, 32) and batch["is_clip"]
    assert batch["pixel_mask"].shape == (2, 32, 32)


def test_a_least_size_and_another_divisor_are_kept():
    batch = collate([scene((33, 47))], task="panoptic", size=(50, 30), divisor=16)
    assert batch["pixel_values"].shape[-2:] == (64, 48)


def test_an_exact_size_is_not_touched():
    sample = scene((32, 64))
    assert collate([sample], task="panoptic")["annotations"][0] == sample.annotation


def test_a_canvas_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pad_annotation(scene((32, 64)).annotation, (32, 32))


def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="not the task 'video_object'"):
        collate([scene((32, 32))], task="video_object")


def test_frames_that_were_not_decoded_are_refused(tmp_path):
    with pytest.raises(ValueError, match="transform"):
        collate([replace(scene((32, 32)), frames=(tmp_path / "a.jpg",))], task="panoptic")


def test_clips_of_two_lengths_are_refused():
    samples = [scene((32, 32), num_frames=count) for count in (2, 3)]
    with pytest.raises(ValueError, match="one length"):
        collate(samples, task="video_panoptic")


def test_two_label_spaces_are_refused():
    sample = scene((32, 32))
    other = replace(sample, label_space=LabelSpace.from_names(["a"]))
    with pytest.raises(ValueError, match="'procedural' and 'custom'"):
        collate([sample, other], task="panoptic")


def test_an_empty_batch_and_a_zero_divisor_are_refused():
    with pytest.raises(ValueError, match="samples is empty"):
        collate([], task="panoptic")
    with pytest.raises(ValueError, match="divisor is 0"):
        collate([scene((32, 32))], task="panoptic", divisor=0)
