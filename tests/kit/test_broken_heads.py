"""Every check of the kit fails for a head that breaks just its promise."""

from dataclasses import replace

import pytest
import torch
from correct_heads import ClickHead, OverlapMetric, RegionHead, resized_probs, stripes

from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import QueryOutput, QueryTargets, Segments
from omg_transformers.testing import check_task_head, head_checks, parametrize_with_head_checks


class OldVersion(RegionHead):
    api_version = 0


class OwnsTensor(RegionHead):
    def __init__(self):
        self.settings = {"weights": [torch.zeros(1)]}


class OwnsTensorInItsClass(RegionHead):
    table = torch.zeros(1)


class HoldsClosure(RegionHead):
    def __init__(self):
        self.rescale = lambda score: score


class IgnoresSeed(RegionHead):
    def example_annotation(self, *, seed, size, num_classes):
        return stripes(seed=0, size=size, num_classes=num_classes)


class ShortLabels(RegionHead):
    def targets(self, annotation):
        targets = super().targets(annotation)
        return replace(targets, labels=targets.labels.int())


class VoidIsBackground(RegionHead):
    def targets(self, annotation):
        return replace(super().targets(annotation), unknown=None)


class CrowdIsAnObject(RegionHead):
    def targets(self, annotation):
        return super().targets(
            replace(annotation, segments=tuple(replace(s, is_crowd=False) for s in annotation.segments))
        )


class OffByOne(RegionHead):
    def result(self, output, index, size, threshold):
        result = super().result(output, index, size, threshold)
        return replace(result, labels=(result.labels + 1) % (output.class_logits.shape[-1] - 1))


class ForgetsDroppedIds(RegionHead):
    def result(self, output, index, size, threshold):
        result = super().result(output, index, size, threshold)
        kept = result.scores > 0.9
        return replace(result, ids=result.ids[kept], labels=result.labels[kept], scores=result.scores[kept])


class FirstFiveQueries(RegionHead):
    def result(self, output, index, size, threshold):
        few = QueryOutput(output.class_logits[:, :5], output.mask_logits[:, :5])
        return super().result(replace(output, **vars_of(few)), index, size, threshold)


def vars_of(output):
    return {"class_logits": output.class_logits, "mask_logits": output.mask_logits}


class FirstSizeForAll(RegionHead):
    def postprocess(self, output, *, sizes, is_thing):
        super().postprocess(output, sizes=sizes, is_thing=is_thing)
        return super().postprocess(output, sizes=[sizes[0]] * len(sizes), is_thing=is_thing)


class ClampsInPlace(RegionHead):
    def result(self, output, index, size, threshold):
        output.mask_logits.clamp_(-4, 4)
        return super().result(output, index, size, threshold)


class LosesShards(OverlapMetric):
    def merge(self, other):
        pass


class LosesShardsHead(RegionHead):
    def metric(self, *, num_classes):
        return LosesShards(by_label=True)


class CountsAsFigure(OverlapMetric):
    def compute(self):
        return {**super().compute(), "segments": float(self.count)}


class CountsAsFigureHead(RegionHead):
    def metric(self, *, num_classes):
        return CountsAsFigure(by_label=True)


class AnySizes(RegionHead):
    def postprocess(self, output, *, sizes, is_thing):
        if output.class_logits is None:
            raise ValueError("class_logits is None")
        return [self.result(output, index, sizes[index], 0.5) for index in range(len(output))]


class NoWordOnClasses(RegionHead):
    def postprocess(self, output, *, sizes, is_thing):
        if output.class_logits is None:
            raise RuntimeError("no classes")
        return super().postprocess(output, sizes=sizes, is_thing=is_thing)


class SwallowsOptions(RegionHead):
    def postprocess(self, output, *, sizes, is_thing, **options):
        return super().postprocess(output, sizes=sizes, is_thing=is_thing)


class MeanPerPicture(OverlapMetric):
    def update(self, prediction, annotation, *, key=None):
        super().update(prediction, annotation)
        self.weight = 1 / len(annotation.segments)


class MeanPerPictureHead(RegionHead):
    def metric(self, *, num_classes):
        return MeanPerPicture(by_label=True)


class VoidIsAClassLikeAny(RegionHead):
    def result(self, output, index, size, threshold):
        labels = output.class_logits[index].float()[:, :-1].argmax(-1)
        masks = resized_probs(output, index, size)
        best, which = masks.max(0)
        id_map = torch.where(best > 0.5, which + 1, 0).to(torch.int32)
        return Segments(size, torch.arange(1, len(labels) + 1), labels, masks.amax((1, 2, 3)), id_map=id_map)


class StaysInHalfPrecision(RegionHead):
    def result(self, output, index, size, threshold):
        result = super().result(output, index, size, threshold)
        return replace(result, scores=result.scores.to(output.class_logits.dtype))


class DividesByWidthLessOne(RegionHead):
    def result(self, output, index, size, threshold):
        height, width = size
        assert 1 / (width - 1) + 1 / (height - 1) > 0
        return super().result(output, index, size, threshold)


class FirstFrameOnly(RegionHead):
    def result(self, output, index, size, threshold):
        result = super().result(output, index, size, threshold)
        return replace(result, id_map=result.id_map[:1])


class StretchesPadding(RegionHead):
    def result(self, output, index, size, threshold):
        return super().result(replace(output, content_sizes=None), index, size, threshold)


class AsksWithInfinity(ClickHead):
    def query_inputs(self, targets, *, size, generator):
        inputs, answers = super().query_inputs(targets, size=size, generator=generator)
        radius = inputs["input_points"][..., 0].clone()
        if all(len(target.labels) for target in targets):
            radius.fill_(torch.inf)
        return {**inputs, "radius": radius}, answers


class AsksByGlobalChance(ClickHead):
    def query_inputs(self, targets, *, size, generator):
        return super().query_inputs(targets, size=size, generator=torch.default_generator)


class SwapsXAndY(ClickHead):
    def point(self, mask, generator):
        return super().point(mask, generator).flip(-1)


class AnswersAnotherTarget(ClickHead):
    def query_inputs(self, targets, *, size, generator):
        inputs, answers = super().query_inputs(targets, size=size, generator=generator)
        return inputs, [QueryTargets(a.labels, a.masks.roll(1, 0), a.unknown) for a in answers]


class CannotAskNothing(ClickHead):
    def query_inputs(self, targets, *, size, generator):
        assert all(target.labels.min() >= 0 for target in targets)
        return super().query_inputs(targets, size=size, generator=generator)


BROKEN_HEADS = {
    "check_contract": [OldVersion],
    "check_no_parameters": [OwnsTensor, OwnsTensorInItsClass],
    "check_picklable": [HoldsClosure],
    "check_example_annotation": [IgnoresSeed],
    "check_targets_are_valid": [ShortLabels],
    "check_void_and_crowds_are_unknown": [VoidIsBackground, CrowdIsAnObject],
    "check_perfect_output_scores_one": [OffByOne],
    "check_results_are_valid": [ForgetsDroppedIds],
    "check_query_order_is_irrelevant": [FirstFiveQueries],
    "check_batch_is_independent": [FirstSizeForAll],
    "check_input_is_not_written": [ClampsInPlace],
    "check_metric_merges": [LosesShardsHead],
    "check_figures_are_bounded": [CountsAsFigureHead],
    "check_wrong_sizes_raise": [AnySizes],
    "check_missing_classes_raise": [NoWordOnClasses],
    "check_unknown_option_raises": [SwallowsOptions],
    "check_empty_scene": [MeanPerPictureHead],
    "check_void_queries": [VoidIsAClassLikeAny],
    "check_half_precision": [StaysInHalfPrecision],
    "check_tiny_sizes": [DividesByWidthLessOne],
    "check_still_clip_equals_picture": [FirstFrameOnly],
    "check_padding_is_irrelevant": [StretchesPadding],
    "check_query_inputs_are_valid": [AsksWithInfinity],
    "check_query_inputs_follow_the_generator": [AsksByGlobalChance],
    "check_query_inputs_hit_their_targets": [SwapsXAndY, AnswersAnotherTarget],
    "check_query_inputs_of_empty_scenes": [CannotAskNothing],
}
CASES = [(name, broken) for name, heads in BROKEN_HEADS.items() for broken in heads]


def failing_checks(head):
    failed = []
    for check in head_checks():
        try:
            check(head)
        except Exception:  # noqa: BLE001 a broken head may raise anything
            failed.append(check.__name__)
    return failed


def test_every_check_has_a_broken_head():
    assert set(BROKEN_HEADS) == {check.__name__ for check in head_checks()}


@pytest.mark.parametrize(("name", "broken"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_only_the_broken_promise_is_reported(name, broken):
    assert failing_checks(broken()) == [name]


def test_the_report_names_the_head_the_check_and_the_fault():
    with pytest.raises(AssertionError, match=r"'region'.*\n- check_unknown_option_raises: .*no_such_option=1"):
        check_task_head(SwallowsOptions())


class TwoFaults(SwallowsOptions, OldVersion):
    pass


def test_the_report_lists_every_failure():
    with pytest.raises(AssertionError) as caught:
        check_task_head(TwoFaults())
    assert str(caught.value).count("\n- ") == 2


def test_an_expected_failure_is_accepted():
    check_task_head(OldVersion(), expected_failures={"check_contract": "written for an old release"})


def test_an_expected_failure_that_passes_is_an_error():
    with pytest.raises(AssertionError, match=r"check_contract: .*written long ago.* but it passes"):
        check_task_head(RegionHead(), expected_failures={"check_contract": "written long ago"})


def test_an_expected_failure_of_no_check_is_an_error():
    with pytest.raises(AssertionError, match=r"check_nonsense: .*there is no such check"):
        check_task_head(RegionHead(), expected_failures={"check_nonsense": "misspelt"})


@parametrize_with_head_checks(OldVersion(), expected_failures={"check_contract": "written for an old release"})
def test_parametrize_marks_expected_failures(head, check):
    check(head)


def test_parametrize_refuses_expected_failures_of_no_check():
    with pytest.raises(ValueError, match="check_nonsense"):
        parametrize_with_head_checks(RegionHead(), expected_failures={"check_nonsense": "misspelt"})


def test_parametrize_turns_a_head_that_does_not_load_into_one_failing_test():
    (case,) = parametrize_with_head_checks("no_such_head").args[1]
    head, check = case.values
    assert case.id == "no_such_head-loads"
    with pytest.raises(LookupError, match="no_such_head"):
        check(head)


class DrawsHairlines(RegionHead):
    def example_annotation(self, *, seed, size, num_classes):
        annotation = super().example_annotation(seed=seed, size=size, num_classes=num_classes)
        hairline = torch.zeros((1, *size), dtype=torch.bool)
        hairline[:, 10:, 3 + seed] = True
        return replace(annotation, segments=(replace(annotation.segments[0], masks=encode_masks(hairline)),))


def test_an_example_too_thin_for_the_crowd_check_is_told_so():
    with pytest.raises(AssertionError, match="two pixels wide"):
        check_task_head(DrawsHairlines())
