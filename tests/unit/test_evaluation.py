"""The evaluator: every sample once, whatever stops it; figures by class; the worst first; models beside each other."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from omg_transformers.cli import main
from omg_transformers.data import ProceduralScenes, SampleError
from omg_transformers.evaluation import Report, compare_reports, evaluate, evaluate_model, format_report, write_report
from omg_transformers.evaluation.comparison import format_comparison, write_comparison
from omg_transformers.evaluation.segmenters import PipelineSegmenter, open_segmenter
from omg_transformers.formats.shards import shard_paths
from omg_transformers.inference import load_pipeline
from omg_transformers.labels import Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.ops.masks import encode_mask
from omg_transformers.plugins import load_head
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.structures import Segments

SIZE = (48, 64)
TASKS = ("semantic", "instance", "panoptic")


class Teller:
    """Answers with the truth, but sees nothing of the samples in `blind`; remembers whom it answered."""

    name, num_parameters, fingerprint, notes = "teller", 0, "teller", ()

    def __init__(self, blind: tuple[int, ...] = (), stop_after: int | None = None) -> None:
        self.blind, self.stop_after = blind, stop_after
        self.answered: list[str] = []

    def segment(self, samples, head, prompts, options):
        results = []
        for sample in samples:
            if self.stop_after is not None and len(self.answered) >= self.stop_after:
                raise KeyboardInterrupt
            self.answered.append(sample.sample_id)
            annotation = sample.annotation
            known = [] if int(sample.sample_id.split("-")[-1]) in self.blind else annotation.segments
            ids = torch.arange(1, len(known) + 1)
            labels = torch.tensor([segment.category_id for segment in known], dtype=torch.int64)
            rles = tuple(segment.masks for segment in known)
            results.append(Segments(annotation.size, ids, labels, torch.ones(len(known)), rles=rles))
        return results


class Scenes(ProceduralScenes):
    """Numbered, finite, with broken ones."""

    def __init__(self, num_samples: int, broken: tuple[int, ...] = ()) -> None:
        super().__init__(SIZE, seed=3)
        self.num_samples, self.broken = num_samples, broken

    def sample(self, index):
        if index in self.broken:
            raise SampleError(f"scene {index} is broken")
        return super().sample(index)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    OMGSegModel(OMGSegConfig.tiny(logit_scale=5.0)).save_pretrained(folder)
    space = ProceduralScenes(SIZE).label_space
    names = [name for entry in space.classes for name in (entry.name, *entry.synonyms)]
    vocabulary = Vocabulary.from_table(names, torch.randn(len(names), 16))
    OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 64}), space, vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture
def instance():
    return load_head("instance")


def ids_of(source):
    return [source.sample(index).sample_id for index in range(source.num_samples)]


class TestLoop:
    def test_the_truth_scores_one(self, instance):
        found = evaluate(Teller(), instance, Scenes(3))
        assert found.figures["ap"] == pytest.approx(1)
        assert [sample.figure for sample in found.samples] == pytest.approx([1, 1, 1])

    def test_samples_keep_their_order_and_names(self, instance):
        source = Scenes(5)
        found = evaluate(Teller(), instance, source, batch_size=2)
        assert [sample.sample_id for sample in found.samples] == ids_of(source)

    def test_figures_equal_those_of_one_metric(self, instance):
        source, teller = Scenes(4), Teller(blind=(1, 3))
        metric = instance.metric(num_classes=len(source.label_space))
        for index in range(4):
            sample = source.sample(index)
            metric.update(teller.segment([sample], instance, [{}], {})[0], sample.annotation, key=index)
        assert evaluate(Teller(blind=(1, 3)), instance, source).figures == pytest.approx(metric.compute(), nan_ok=True)

    def test_a_broken_sample_is_named_and_the_others_count(self, instance):
        found = evaluate(Teller(), instance, Scenes(4, broken=(2,)), batch_size=2)
        assert found.skipped == ("scene 2 is broken",)
        assert [sample.number for sample in found.samples] == [0, 1, 3]

    def test_a_clip_that_cannot_be_judged_is_named(self):
        class Tennis(Scenes):
            def sample(self, index):
                clip = ProceduralScenes(SIZE, num_frames=4).sample(index)
                unknown = encode_mask(torch.ones(SIZE, dtype=torch.bool))
                known = tuple(replace(s, masks=(*s.masks[:2], None, None)) for s in clip.annotation.segments)
                annotation = replace(clip.annotation, segments=known, void=(None, None, unknown, unknown))
                return replace(clip, annotation=annotation) if index else clip

        class Follower(Teller):
            def segment(self, samples, head, prompts, options):
                (found,) = super().segment(samples, head, prompts, options)
                keep = [index for index, rles in enumerate(found.rles) if rles[0]]
                rows = torch.tensor(keep)
                kept = tuple(found.rles[index] for index in keep)
                return [replace(found, ids=rows + 1, labels=rows * 0 - 1, scores=found.scores[rows], rles=kept)]

        found = evaluate(Follower(), load_head("video_object"), Tennis(2))
        (reason,) = found.skipped
        assert "2 annotated frames, of which the first and the last are not judged" in reason
        assert found.figures["j_and_f"] == 1.0

    def test_only_broken_samples_are_an_error(self, instance):
        with pytest.raises(ValueError, match="no sample could be used: scene 0 is broken"):
            evaluate(Teller(), instance, Scenes(1, broken=(0,)))

    def test_the_worst_come_first_with_their_answers(self, instance):
        found = evaluate(Teller(blind=(2,)), instance, Scenes(4), num_worst=2)
        (first, answer), (second, _) = found.worst
        assert (first.number, first.figure, len(answer)) == (2, 0, 0)
        assert second.figure == pytest.approx(1)

    def test_classes_that_are_found_and_missed_are_counted(self, instance):
        source = Scenes(4)
        blind, seeing = (evaluate(Teller(blind=blind), instance, source) for blind in ((0, 1, 2, 3), ()))
        num_classes = len(source.label_space)
        assert blind.confusion[:num_classes, :num_classes].sum() == 0
        assert blind.confusion[:num_classes, num_classes].sum() == np.trace(
            seeing.confusion[:num_classes, :num_classes]
        )
        assert set(map(len, seeing.class_columns.values())) == {num_classes}

    def test_an_endless_source_needs_a_limit(self, instance):
        with pytest.raises(ValueError, match="endless: give a limit"):
            evaluate(Teller(), instance, ProceduralScenes(SIZE))
        assert len(evaluate(Teller(), instance, ProceduralScenes(SIZE), limit=2).samples) == 2

    def test_prompts_are_for_heads_that_are_asked_so(self, instance):
        with pytest.raises(ValueError, match="asked without prompts"):
            evaluate(Teller(), instance, Scenes(1), prompts="box")
        with pytest.raises(ValueError, match="judged by box, click"):
            evaluate(Teller(), load_head("interactive"), Scenes(1), prompts="shout")

    def test_an_error_names_the_sample(self, instance):
        class Odd(Teller):
            def segment(self, samples, head, prompts, options):
                raise ValueError("this cannot be answered")

        source = Scenes(1)
        with pytest.raises(ValueError, match="cannot be answered") as caught:
            evaluate(Odd(), instance, source)
        assert source.sample(0).sample_id in caught.value.__notes__[0]


class TestResume:
    def test_a_stopped_run_goes_on_without_asking_twice(self, instance, tmp_path):
        source, first, second = Scenes(6), Teller(blind=(1,), stop_after=4), Teller(blind=(1,))
        with pytest.raises(KeyboardInterrupt):
            evaluate(first, instance, source, journal=tmp_path)
        found = evaluate(second, instance, source, journal=tmp_path, num_worst=1)
        assert first.answered + second.answered == ids_of(source)
        whole = evaluate(Teller(blind=(1,)), instance, source, num_worst=1)
        assert found.figures == pytest.approx(whole.figures, nan_ok=True)
        assert found.samples == whole.samples
        assert found.worst[0][0] == whole.worst[0][0]
        assert np.array_equal(found.confusion, whole.confusion)

    def test_a_torn_line_is_asked_again(self, instance, tmp_path):
        source = Scenes(3)
        evaluate(Teller(), instance, source, journal=tmp_path)
        (shard,) = shard_paths(tmp_path)
        shard.write_bytes(shard.read_bytes()[:-20])
        again = Teller()
        assert len(evaluate(again, instance, source, journal=tmp_path).samples) == 3
        assert again.answered == ids_of(source)[-1:]

    def test_more_samples_only_cost_the_new_ones(self, instance, tmp_path):
        evaluate(Teller(), instance, Scenes(5), limit=2, journal=tmp_path)
        more = Teller()
        assert len(evaluate(more, instance, Scenes(5), limit=4, journal=tmp_path).samples) == 4
        assert more.answered == ids_of(Scenes(5))[2:4]

    def test_answers_to_something_else_are_refused(self, instance, tmp_path):
        evaluate(Teller(), instance, Scenes(1), journal=tmp_path, about={"weights": "a", "task": "instance"})
        with pytest.raises(ValueError, match="weights"):
            evaluate(Teller(), instance, Scenes(1), journal=tmp_path, about={"weights": "b", "task": "instance"})


class TestOurModels:
    @pytest.mark.parametrize("task", TASKS)
    def test_a_batch_gives_the_figures_of_single_samples(self, model_folder, task):
        segmenter, head, source = open_segmenter(model_folder), load_head(task), Scenes(3)
        single, batched = (evaluate(segmenter, head, source, batch_size=size).figures for size in (1, 3))
        assert single == pytest.approx(batched, abs=1e-6, nan_ok=True)

    @pytest.mark.parametrize("kind", ["box", "click"])
    def test_prompts_are_asked_and_judged(self, model_folder, kind):
        found = evaluate(open_segmenter(model_folder), load_head("interactive"), Scenes(2), prompts=kind)
        assert 0 <= found.figures["iou"] <= 1
        assert found.confusion is None

    @pytest.mark.parametrize("task", ["video_semantic", "video_instance", "video_panoptic", "video_object"])
    def test_clips_are_followed_and_judged(self, model_folder, task):
        source = ProceduralScenes(SIZE, num_frames=6, seed=1)  # VPQ looks through windows of up to 6
        found = evaluate(open_segmenter(model_folder), load_head(task), source, limit=2)
        assert len(found.samples) == 2
        assert 0 <= next(iter(found.figures.values())) <= 1

    def test_a_model_in_training_goes_on_training(self, model_folder):
        pipeline = load_pipeline(model_folder, device="cpu")
        pipeline.model.train()
        evaluate(PipelineSegmenter(pipeline), load_head("panoptic"), Scenes(1))
        assert pipeline.model.training

    def test_a_clip_is_refused_by_a_picture_task(self, model_folder):
        with pytest.raises(ValueError, match="clip of 3 frames"):
            evaluate(open_segmenter(model_folder), load_head("panoptic"), ProceduralScenes(SIZE, num_frames=3), limit=1)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (None, "there is no model in"),
            ("not json", "is not valid JSON"),
            ('{"model_type": "mask2formre"}', "Did you mean 'mask2former'"),
            ("{}", "expected one of omg_seg"),
        ],
    )
    def test_a_folder_without_a_usable_model_says_why(self, tmp_path, config, message):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match=message):
            open_segmenter(tmp_path)


class TestReport:
    REPORT = Report(
        "panoptic",
        {"pq": 0.5, "sq": math.nan},
        2,
        ("cat", "sky"),
        {"pq": np.array([0.25, math.nan]), "tp": np.array([3, 0])},
        ("left out: one",),
        {"seconds": 1.5},
    )

    def test_files_hold_figures_classes_and_where_they_come_from(self, tmp_path):
        write_report(self.REPORT, tmp_path / "new")
        content = json.loads((tmp_path / "new" / "results.json").read_text())
        assert content["figures"] == {"pq": 0.5, "sq": None}
        assert content["notes"] == ["left out: one"]
        assert {"command", "versions", "date", "seconds", "num_samples"} <= set(content)
        with (tmp_path / "new" / "per_class.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert rows == [{"class": "cat", "pq": "0.25", "tp": "3"}, {"class": "sky", "pq": "", "tp": "0"}]

    def test_text_shows_percent_and_leaves_out_classes_that_do_not_occur(self):
        text = format_report(self.REPORT)
        assert "50.00" in text
        assert "cat" in text
        assert "sky" not in text
        assert "note: left out: one" in text

    def test_columns_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match="1 values for 2 classes"):
            Report("x", {}, 0, ("a", "b"), {"pq": np.zeros(1)}).rows()


class TestComparison:
    def reports(self, instance):
        return [evaluate_model(Teller(blind=blind), instance, Scenes(4)) for blind in ((0,), (), (0, 1))]

    def test_differences_are_taken_sample_by_sample(self, instance):
        comparison = compare_reports(["a", "b", "c"], self.reports(instance))
        better, worse = comparison.differences
        assert (better.mean, better.num_better, better.num_worse) == (pytest.approx(0.25), 1, 0)
        assert (worse.mean, worse.num_better, worse.num_worse) == (pytest.approx(-0.25), 0, 1)
        assert better.low <= better.mean <= better.high
        assert worse.largest == ((ids_of(Scenes(4))[1], pytest.approx(-1)),)

    def test_the_table_is_written_and_shown(self, instance, tmp_path):
        comparison = compare_reports(["a", "b", "c"], self.reports(instance))
        write_comparison(comparison, tmp_path)
        with (tmp_path / "comparison.csv").open() as stream:
            rows = {row["figure"]: row for row in csv.DictReader(stream)}
        assert float(rows["ap"]["b"]) == pytest.approx(1)
        assert json.loads((tmp_path / "comparison.json").read_text())["models"] == ["a", "b", "c"]
        assert "b minus a, sample by sample: +25.00" in format_comparison(comparison)

    def test_other_classes_do_not_compare(self, instance):
        first = self.reports(instance)[0]
        with pytest.raises(ValueError, match="do not compare"):
            compare_reports(["a", "b"], [first, Report("instance", {}, 1)])


class TestCommands:
    DATA = ("--data", "scenes", "--data-option", "size=[48, 64]", "--limit", "3", "--device", "cpu")

    def test_evaluate_writes_everything_and_goes_on(self, model_folder, tmp_path, capsys):
        words = ["evaluate", "--model", str(model_folder), *self.DATA, "--task", "panoptic", "--out", str(tmp_path)]
        assert main([*words, "--worst", "2"]) == 0
        assert "pq" in capsys.readouterr().out
        assert {path.name for path in tmp_path.iterdir()} == {
            "answers", "confusion.png", "per_class.csv", "results.json", "worst"
        }  # fmt: skip
        assert len(list((tmp_path / "worst").glob("*.png"))) == 2
        first = json.loads((tmp_path / "results.json").read_text())
        assert main(words) == 0
        assert json.loads((tmp_path / "results.json").read_text())["figures"] == first["figures"]

    def test_compare_prints_one_table(self, model_folder, tmp_path, capsys):
        words = ["compare", str(model_folder), str(model_folder), *self.DATA, "--out", str(tmp_path)]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "tiny-2 minus tiny, sample by sample: +0.00" in out
        assert {"comparison.csv", "comparison.json", "tiny", "tiny-2"} == {path.name for path in tmp_path.iterdir()}

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--model", "nowhere"], "there is no model in 'nowhere'"),
            (["--task", "panotpic"], "panoptic"),
            (["--data", "coco"], "coco_panoptic"),
            (["--data", "coco_panoptic"], "root is missing"),
            (["--option", "threshold"], "expected NAME=VALUE"),
            (["--task", "video_panoptic_of_old"], "video_panoptic_of_old"),
        ],
    )
    def test_mistakes_end_before_any_work(self, words, message, tmp_path, capsys):
        assert main(["evaluate", *self.DATA, *words, "--out", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err

    def test_one_model_is_nothing_to_compare(self, capsys):
        assert main(["compare", "default", *self.DATA]) == 1
        assert "nothing to compare" in capsys.readouterr().err


@pytest.mark.slow
def test_seven_samples_on_three_processes_count_once_each(model_folder, tmp_path):
    words = ["evaluate", "--model", str(model_folder), "--data", "scenes", "--data-option", "size=[48, 64]"]
    words += ["--limit", "7", "--device", "cpu", "--task", "instance"]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "3", "--main_process_port", "0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for place, launcher in {"one": [], "three": [*launch, "-m"]}.items():
        command = [sys.executable, *launcher, *(["-m"] if not launcher else []), "omg_transformers", *words]
        subprocess.run([*command, "--out", str(tmp_path / place)], check=True, env=environment, capture_output=True)
    one, three = (json.loads((tmp_path / place / "results.json").read_text()) for place in ("one", "three"))
    assert three["num_processes"] == 3
    assert three["samples"] == one["samples"]
    assert len(three["samples"]) == 7
    assert three["figures"] == one["figures"]
    assert len(shard_paths(tmp_path / "three" / "answers")) == 3
