"""What is not annotated in full stays known as such: from the files to the targets, and back into files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from omg_transformers.data import ComposedScenes, EvalTransform, MappedSource, PseudoClips, TrainTransform, open_layout
from omg_transformers.data.clips import take_frames
from omg_transformers.data.collate import pad_annotation
from omg_transformers.data.hub import as_iterable_dataset, sample_from_row
from omg_transformers.data.label_mapping import map_annotation
from omg_transformers.data.writers import write_source
from omg_transformers.labels import LabelSpace
from omg_transformers.metrics.confusion import PixelConfusion
from omg_transformers.plugins import load_head
from omg_transformers.structures import Annotation, Segments
from omg_transformers.training.questions import make_question

from .drawn_samples import SIZE, SPACE, ListSource, box_region, drawn_sample, with_annotation

SOME = frozenset({0, 2})


def partial(num_frames=1, certain=SOME):
    return with_annotation(drawn_sample(0, num_frames), certain_classes=certain)


def rng():
    return np.random.default_rng(0)


CHANGES = {
    "random view": lambda: TrainTransform((32, 32))(partial(), rng()),
    "resize": lambda: EvalTransform(shortest_side=20)(partial()),
    "frames of a clip": lambda: take_frames(partial(3), [0, 2]),
    "still clip": lambda: PseudoClips(ListSource([partial()])).sample(0),
    "pasted objects": lambda: ComposedScenes(ListSource([partial()]), ListSource([drawn_sample(1)])).sample(0),
    "rows of datasets": lambda: sample_from_row(next(iter(as_iterable_dataset(ListSource([partial()])))), SPACE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_certain_classes_go_through(change):
    assert CHANGES[change]().annotation.certain_classes == SOME


def test_certain_classes_go_through_padding():
    assert pad_annotation(partial().annotation, (64, 96)).certain_classes == SOME


def test_rows_of_datasets_written_before_are_read_as_exhaustive():
    (row,) = as_iterable_dataset(ListSource([drawn_sample(0)]))
    del row["certain_classes"]
    assert sample_from_row(row, SPACE).annotation.is_exhaustive


@pytest.mark.parametrize(
    ("certain", "num_classes", "expected"),
    [(None, 2, True), (frozenset({0, 1}), 2, True), (frozenset({1}), 2, False), (frozenset(), 1, False)],
)
def test_an_annotation_is_exhaustive_when_all_classes_are_certain(certain, num_classes, expected):
    annotation = Annotation((2, 2), (True,) * num_classes, (), certain_classes=certain)
    assert annotation.is_exhaustive is expected


def test_a_class_is_certain_only_when_all_that_falls_into_it_is():
    names = SPACE.names
    target = LabelSpace.from_names([f"{names[0]}|{names[1]}", *names[2:], "helicopter"])
    annotation = partial(certain=frozenset(range(len(SPACE))) - {1}).annotation
    mapped = map_annotation(annotation, SPACE, target)
    # Nobody looked for helicopters either.
    assert mapped.certain_classes == frozenset(range(1, len(target) - 1))


def test_a_mapped_source_that_is_exhaustive_stays_so():
    target = LabelSpace.from_names([*SPACE.names, "helicopter"])
    assert MappedSource(ListSource([drawn_sample(0)]), target).sample(0).annotation.certain_classes is None


def ask(annotations):
    return make_question(
        load_head("instance"),
        annotations,
        class_embeds=None,
        size=SIZE,
        generator=torch.Generator().manual_seed(0),
    )


def test_targets_of_learned_queries_say_which_classes_are_certain():
    whole, some = ask([drawn_sample(0).annotation, partial().annotation]).targets
    assert whole.is_certain is None
    assert some.is_certain.tolist() == [label in SOME for label in range(len(SPACE))]


@pytest.mark.parametrize("certain", [frozenset(), SOME, frozenset({1, 3, 5}), None])
def test_certain_classes_come_back_from_coco_instances(tmp_path, certain):
    write_source(ListSource([partial(certain=certain)]), "coco_instances", tmp_path, "train")
    source = open_layout("coco_instances", tmp_path, "train")
    assert source.label_space.names == SPACE.names
    assert source.sample(0).annotation.certain_classes == certain


def test_a_coco_file_of_exhaustive_pictures_has_no_keys_of_lvis(tmp_path):
    write_source(ListSource([drawn_sample(0)]), "coco_instances", tmp_path, "train")
    assert "category_ids" not in (tmp_path / "annotations" / "instances_train.json").read_text()


def test_a_video_that_is_not_exhaustive_comes_back_so_from_youtube_vis(tmp_path):
    samples = [partial(3, frozenset()), replace(drawn_sample(1, 3), sample_id="b")]
    write_source(ListSource(samples), "youtube_vis", tmp_path, "train")
    source = open_layout("youtube_vis", tmp_path, "train")
    assert [source.sample(index).annotation.certain_classes for index in (0, 1)] == [frozenset(), None]


def test_youtube_vis_can_only_say_whether_all_classes_are_certain(tmp_path):
    written = write_source(ListSource([partial(3)]), "youtube_vis", tmp_path, "train")
    assert written.losses["samples read as certain of no class, and were of some"] == 1
    assert open_layout("youtube_vis", tmp_path, "train").sample(0).annotation.certain_classes == frozenset()


@pytest.mark.parametrize("kind", ["coco_panoptic", "yolo_seg"])
def test_layouts_that_cannot_say_it_count_it_as_lost(tmp_path, kind):
    written = write_source(ListSource([partial()]), kind, tmp_path, "train")
    assert written.losses["samples that are not annotated in full read as if they were"] == 1


def test_what_is_not_annotated_is_no_confusion():
    one = torch.ones(1, dtype=torch.long)
    found = Segments(SIZE, one, one * 2, torch.ones(1), rles=((box_region(0, 50, 6, 60),),))
    sample = partial(certain=frozenset())
    confusion = PixelConfusion(len(SPACE))
    confusion.update(found, with_annotation(sample, segments=()).annotation)
    assert confusion.matrix.sum() == 0
