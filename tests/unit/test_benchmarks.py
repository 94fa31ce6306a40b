"""Benchmark scripts run and report what they promise; their timings are for an idle machine, not for tests."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = [
    "backbone",
    "pixel decoder, ours",
    "pixel decoder, transformers",
    "query decoder, ours",
    "query decoder, transformers",
    "end to end, ours",
    "end to end, transformers",
]


@pytest.fixture
def model_speed():
    spec = importlib.util.spec_from_file_location("model_speed", FOLDER / "model_speed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def run(module, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["model_speed.py", "--threads", "1", *map(str, options)])
    module.main()


def test_model_speed_reports_every_part_and_ratio_with_its_goal(model_speed, monkeypatch, tmp_path, capsys):
    out = tmp_path / "speed.json"
    run(model_speed, monkeypatch, "--tiny", "--repeats", 1, "--out", out)
    report = json.loads(out.read_text())
    assert {"task", "weights", "model", "settings", "machine", "versions", "commit", "ratios", "rows"} <= set(report)
    assert "random" in report["weights"]
    assert report["machine"]["threads"] == 1
    assert [row["part"] for row in report["rows"]] == PARTS
    assert all(len(row["seconds"]) == 1 and row["median"] > 0 for row in report["rows"])
    assert [row["goal"] for row in report["ratios"]] == ["at least 1.4", "at least 2.5", "at least 2.0", "at most 1.35"]
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    assert "end to end, transformers" in capsys.readouterr().out


def test_model_speed_compares_pixel_decoders_that_give_the_same_features(model_speed, monkeypatch, tmp_path):
    out = tmp_path / "speed.json"
    run(model_speed, monkeypatch, "--tiny", "--repeats", 1, "--out", out)
    assert json.loads(out.read_text())["pixel_decoders_differ_by"] < 1e-5


def test_model_speed_refuses_models_that_do_different_work(model_speed):
    ours = model_speed.build_ours(model_speed.OMGSegConfig.tiny(group_norm_groups=32))
    theirs = model_speed.build_theirs(ours, num_classes=3)
    theirs.model.pixel_level_module.decoder.mask_projection.bias.data += 1
    with torch.inference_mode():
        parts = model_speed.build_parts(ours, theirs, torch.randn(1, 3, 64, 64), torch.randn(3, 1, 16))
        with pytest.raises(RuntimeError, match="the two models differ"):
            model_speed.check_parts(parts)


def test_ratios_are_of_medians_and_know_their_goal(model_speed):
    seconds = {name: [1.0, 2.0, 9.0] for name in PARTS}
    seconds["query decoder, transformers"] = [6.0, 5.0, 9.0]
    _, ratios = model_speed.summarise(seconds)
    of_queries = ratios[1]
    assert (of_queries["ratio"], of_queries["min"], of_queries["max"]) == (3.0, 1.0, 6.0)
    assert of_queries["is_reached"]
    assert not ratios[0]["is_reached"]
    assert ratios[3]["is_reached"]


@pytest.mark.parametrize("options", [("--size", 65), ("--repeats", 0)])
def test_model_speed_refuses_settings_that_cannot_be_timed(model_speed, monkeypatch, capsys, options):
    with pytest.raises(SystemExit):
        run(model_speed, monkeypatch, "--tiny", *options)
    assert options[0] in capsys.readouterr().err
