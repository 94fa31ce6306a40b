"""What a stranger does with his own query type: train, save, reload. Also run as a script in a fresh environment."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path

import torch

from omg_transformers.model import OMGSegModel
from omg_transformers.plugins import available_heads, head_origin, load_head
from omg_transformers.testing import check_task_head, tiny_model
from omg_transformers.training.loss import SegmentationLoss
from omg_transformers.training.loss_settings import LossSettings

SIZE = (64, 96)
QUERY_ENCODERS = {"scribble": {"distribution": "omg-head-scribble", "options": {"num_frequencies": 4}}}


def picture(seed: int = 0) -> torch.Tensor:
    """(1, 3, 64, 96)"""
    return torch.randn((1, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def train(num_steps: int = 6) -> tuple[OMGSegModel, list[float]]:
    """A model that has learned one scene for a few steps, and its losses."""
    head, model = load_head("scribble"), tiny_model(query_encoders=QUERY_ENCODERS).train()
    annotation = head.example_annotation(seed=0, size=SIZE, num_classes=3)
    inputs, targets = head.query_inputs(
        [head.targets(annotation)], size=SIZE, generator=torch.Generator().manual_seed(0)
    )
    loss, optimizer = SegmentationLoss(LossSettings(mask_loss="maps")), torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(num_steps):
        output = model(picture(), query_type="scribble", query_inputs=inputs, output_auxiliary=True)
        losses = loss([*output.auxiliary, output.to_query_output()], targets, is_matched=False)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append(losses["total"].item())
    return model.eval(), history


def reload(folder: Path) -> OMGSegModel:
    """The saved model, in memory aligned as that of a new model.

    Weights that are mapped from a file lie at odd addresses, where the CPU sums in another order: the same weights
    then answer with differences of 3e-6.
    """
    return copy.deepcopy(OMGSegModel.from_pretrained(folder))


@torch.no_grad()
def learned_answer(model: OMGSegModel) -> torch.Tensor:
    """What the model says without the plug-in's queries."""
    return model(picture()).mask_logits


@torch.no_grad()
def scribble_answer(model: OMGSegModel) -> torch.Tensor:
    """What it says to one scribble."""
    lines = torch.tensor([[[[20.0, 30.0], [25.0, 33.0], [31.0, 35.0]]]])
    return model(picture(), query_type="scribble", query_inputs={"scribble_points": lines}).mask_logits


def tell_with_plugin(folder: Path) -> None:
    """Installed: conform, train, save, reload bit for bit."""
    assert "scribble" in available_heads()
    assert head_origin("scribble").distribution == "omg-head-scribble"
    check_task_head(load_head("scribble"))
    model, history = train()
    assert history[-1] < history[0], history
    model.save_pretrained(folder)
    reloaded = reload(folder)
    stored = model.state_dict()
    assert any(name.startswith("query_encoders.scribble.") for name in stored)
    assert stored.keys() == reloaded.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in reloaded.state_dict().items())
    assert torch.equal(scribble_answer(reloaded), scribble_answer(model))
    torch.save({"learned": learned_answer(model)}, folder / "answer.pt")


def tell_without_plugin(folder: Path) -> None:
    """Not installed: named, all else loaded, refused when asked for."""
    assert "scribble" not in available_heads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = reload(folder)
    assert any("omg-head-scribble" in str(warning.message) for warning in caught), [str(w.message) for w in caught]
    answer = torch.load(folder / "answer.pt", weights_only=True)["learned"]
    assert torch.equal(learned_answer(model), answer)
    try:
        scribble_answer(model)
    except RuntimeError as error:
        assert "omg-head-scribble" in str(error), error
    else:
        raise AssertionError("a query type that is not installed was answered")


if __name__ == "__main__":
    chapters = {"with": tell_with_plugin, "without": tell_without_plugin}
    chapters[sys.argv[1]](Path(sys.argv[2]))
