"""Our metrics behind `evaluate.load`: the same figures, from plain records, without a network."""

from __future__ import annotations

import json
import sys
import threading

import numpy as np
import pytest
import torch

from omg_transformers import evaluate_module
from omg_transformers.metrics.average_precision import MaskAveragePrecision
from omg_transformers.metrics.evaluate_modules import EVALUATE_MODULES
from omg_transformers.metrics.panoptic import PanopticQuality
from omg_transformers.metrics.plain_records import (
    annotation_of_record,
    record_of_annotation,
    record_of_segments,
    score_records,
    segments_of_record,
)
from omg_transformers.metrics.semantic import MeanIoU
from omg_transformers.metrics.video_object import VideoObjectQuality
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments

SIZE = (13, 17)
IS_THING = (True, False, True)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """The package, with its copies of our scripts in a folder of these tests."""
    package = pytest.importorskip("evaluate", reason="pip install omg-transformers[evaluate]")
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", folder)
        patch.syspath_prepend(str(folder))
        forget_copies()
        yield package
        forget_copies()


def forget_copies():
    """So that whoever loads modules from another folder in this process finds them there."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


@pytest.fixture
def load(evaluate, tmp_path):
    """`evaluate.load` of one of our modules."""

    def load(name, **options):
        return evaluate.load(evaluate_module(name), cache_dir=str(tmp_path), **options)

    return load


def scene(seed, num_frames=1, is_thing=IS_THING, may_overlap=False):
    """Stripes as truth with void and a crowd, and a prediction that is partly right."""
    generator = torch.Generator().manual_seed(seed)
    borders = torch.randperm(SIZE[1] - 1, generator=generator)[:5].sort().values + 1
    stripe = torch.bucketize(torch.arange(SIZE[1]), borders, right=True).expand(num_frames, *SIZE)
    masks = [encode_masks(stripe == index) for index in range(6)]
    labels = torch.randint(0, len(is_thing), (5,), generator=generator).tolist()
    segments = [Segment(label, rles) for label, rles in zip(labels[:4], masks, strict=False)]
    segments.append(Segment(is_thing.index(True), masks[4], is_crowd=True))
    annotation = Annotation(SIZE, is_thing, tuple(segments), masks[5])
    shifted = stripe.roll(seed % 3, dims=2)
    ids = torch.arange(1, 6)
    scores = torch.rand(5, generator=generator)
    if may_overlap:
        rles = tuple(encode_masks(shifted == index) for index in range(5))
        return Segments(SIZE, ids, torch.tensor(labels), scores, rles=rles), annotation
    return Segments(SIZE, ids, torch.tensor(labels), scores, (shifted + 1).clamp(max=6).int() % 6), annotation


def own_figures(metric, scenes):
    for prediction, annotation in scenes:
        metric.update(prediction, annotation)
    return metric.compute()


def records(scenes):
    predictions, annotations = zip(*scenes, strict=True)
    return [record_of_segments(each) for each in predictions], [record_of_annotation(each) for each in annotations]


def case(name):
    """Scenes, what `compute` is told, and our own metric."""
    things = (True, True, True)
    return {
        "panoptic_quality": (
            [scene(seed) for seed in range(4)],
            {"is_thing": list(IS_THING)},
            PanopticQuality(3, IS_THING),
        ),
        "mean_iou": ([scene(seed) for seed in range(4)], {"num_classes": 3}, MeanIoU(3)),
        "mask_average_precision": (
            [scene(seed, is_thing=things, may_overlap=True) for seed in range(4)],
            {"num_classes": 3, "kind": "bbox"},
            MaskAveragePrecision(3, kind="bbox"),
        ),
        "video_object_quality": (
            [scene(seed, num_frames=3, may_overlap=True) for seed in range(2)],
            {"task": "unsupervised"},
            VideoObjectQuality("unsupervised"),
        ),
    }[name]


@pytest.mark.parametrize("name", EVALUATE_MODULES)
def test_a_module_gives_the_figures_of_our_own_metric(load, name):
    scenes, arguments, metric = case(name)
    module = load(name)
    predictions, references = records(scenes)
    module.add(prediction=predictions[0], reference=references[0])
    module.add_batch(predictions=predictions[1:], references=references[1:])
    expected = own_figures(metric, scenes)
    np.testing.assert_equal(module.compute(**arguments), expected)
    assert 0 < next(iter(expected.values())) < 1


def test_two_processes_give_the_figures_of_one(load):
    scenes, arguments, metric = case("panoptic_quality")
    predictions, references = records(scenes)
    results = {}

    def work(rank):
        module = load("panoptic_quality", num_process=2, process_id=rank, experiment_id="both")
        for index in range(rank, len(scenes), 2):
            module.add(prediction=predictions[index], reference=references[index])
        results[rank] = module.compute(**arguments)

    load("panoptic_quality")  # threads of one process must not copy the script at the same time
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[1] is None
    np.testing.assert_equal(results[0], own_figures(metric, scenes))


def test_counts_given_as_bytes_are_refused_before_they_are_stored(load):
    predictions, references = records([scene(0)])
    predictions[0]["segments"][0]["masks"] = [predictions[0]["segments"][0]["masks"][0].encode()]
    with pytest.raises(ValueError, match="expected format"):
        load("panoptic_quality").add(prediction=predictions[0], reference=references[0])


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(LookupError, match="Did you mean 'panoptic_quality'"):
        evaluate_module("panoptic")


def test_records_survive_json_and_give_back_what_they_were_made_of():
    prediction, annotation = scene(1, num_frames=2)
    written = json.loads(json.dumps([record_of_segments(prediction), record_of_annotation(annotation)]))
    segments = segments_of_record(written[0], 2, may_overlap=False)
    assert (segments.id_map == prediction.id_map).all()
    assert segments.labels.tolist() == prediction.labels.tolist()
    assert segments.scores.tolist() == prediction.scores.tolist()
    assert annotation_of_record(written[1], IS_THING) == annotation


def test_a_reference_without_void_has_the_frames_of_its_masks():
    record = record_of_annotation(scene(1, num_frames=2)[1])
    assert annotation_of_record({**record, "void": []}, IS_THING).num_frames == 2
    assert annotation_of_record({"size": [2, 3], "segments": [], "void": []}, IS_THING).num_frames == 1


@pytest.mark.parametrize(
    ("side", "change", "match"),
    [
        ("prediction", {"masks": ["Z"]}, "sample 1: prediction, segment 0: counts"),
        ("prediction", {"masks": ["é"]}, "counts is empty"),
        ("prediction", {"masks": ["", ""]}, "2 masks for 1 frames"),
        ("reference", {"masks": ["Z"]}, "sample 1: reference, segment 0: counts"),
        ("reference", {"category_id": 7}, "sample 1: the reference has the classes \\[7\\]"),
        ("prediction", {"category_id": 7}, "sample 1: prediction has classes"),
    ],
)
def test_a_bad_record_is_refused_naming_sample_and_segment(side, change, match):
    predictions, references = records([scene(0), scene(1)])
    bad = (predictions if side == "prediction" else references)[1]
    bad["segments"][0] |= change
    with pytest.raises(ValueError, match=match):
        score_records(PanopticQuality(3, IS_THING), predictions, references, is_thing=IS_THING, may_overlap=False)


def test_overlapping_segments_are_refused_where_each_pixel_has_one():
    predictions, references = records([scene(0)])
    first, second = predictions[0]["segments"][:2]
    second["masks"] = first["masks"]
    with pytest.raises(ValueError, match="sample 0: prediction, segments 0 and 1: they overlap in frame 0"):
        score_records(MeanIoU(3), predictions, references, is_thing=IS_THING, may_overlap=False)


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match="size is \\[3\\]"):
        annotation_of_record({"size": [3], "segments": [], "void": []}, IS_THING)
