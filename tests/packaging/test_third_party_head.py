"""A head with a query type of its own, from a distribution of its own: found, trained, saved, reloaded, refused."""

import re
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import scribble_story as story
import torch

from omg_transformers.plugins import available_heads, available_query_encoders, failed_heads, head_origin, load_head
from omg_transformers.testing import check_task_head

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "third_party_head"


def write_metadata(folder, project):
    """What an installer writes beside the package: name, version and entry points."""
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


class Installation:
    """The example as if installed: its folder and the metadata that its own pyproject.toml asks for."""

    def __init__(self, folder):
        self.folder = folder
        write_metadata(folder, tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"])
        self.install()

    def install(self):
        sys.path[:0] = [str(EXAMPLE), str(self.folder)]

    def remove(self):
        sys.path[:] = [entry for entry in sys.path if entry not in (str(EXAMPLE), str(self.folder))]
        for name in [name for name in sys.modules if name.partition(".")[0] == "omg_head_scribble"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    installation = Installation(tmp_path_factory.mktemp("site"))
    yield installation
    installation.remove()


@pytest.fixture
def removed(installed):
    installed.remove()
    yield
    installed.install()


@pytest.fixture(scope="module")
def trained(installed):
    return story.train()


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    trained[0].save_pretrained(folder)
    return folder


def test_head_and_query_type_are_found(installed):
    assert "scribble" in available_heads()
    assert "scribble" in available_query_encoders()
    assert head_origin("scribble").distribution == "omg-head-scribble"


def test_the_head_passes_the_conformance_kit(installed):
    check_task_head(load_head("scribble"))


def test_the_core_does_not_know_it():
    sources = [path for folder in ("src", "task_heads") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 20
    assert not [path for path in sources if re.search("scribble", path.read_text(), re.IGNORECASE)]


def test_the_model_learns_from_scribbles(trained):
    _, history = trained
    assert history[-1] < 0.9 * history[0]


def test_the_encoder_is_trained_with_the_rest(trained):
    before = story.tiny_model(query_encoders=story.QUERY_ENCODERS).state_dict()
    after = trained[0].state_dict()
    names = [name for name in after if name.startswith("query_encoders.scribble.")]
    assert len(names) == 8
    assert not [name for name in names if torch.equal(before[name], after[name])]


def test_a_checkpoint_with_it_is_reloaded_bit_for_bit(trained, saved):
    model, reloaded = trained[0], story.reload(saved)
    stored = model.state_dict()
    assert stored.keys() == reloaded.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in reloaded.state_dict().items())
    assert torch.equal(story.scribble_answer(reloaded), story.scribble_answer(model))


def test_wrong_scribbles_are_refused(trained):
    with pytest.raises(ValueError, match=r"scribble_points is \(1, 3, 2\): expected a tensor \(1, N, K, 2\)"):
        trained[0](story.picture(), query_type="scribble", query_inputs={"scribble_points": torch.zeros(1, 3, 2)})


def test_a_checkpoint_whose_plug_in_is_missing_loads_all_else_and_names_it(trained, saved, removed):
    with pytest.warns(UserWarning, match="omg-head-scribble"):
        model = story.reload(saved)
    stored = trained[0].state_dict()
    assert stored.keys() - model.state_dict().keys() == {
        name for name in stored if name.startswith("query_encoders.scribble.")
    }
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert torch.equal(story.learned_answer(model), story.learned_answer(trained[0]))


def test_a_query_type_that_is_missing_is_refused_by_name(saved, removed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = story.reload(saved)
    with pytest.raises(
        RuntimeError, match=r"'scribble' needs omg-head-scribble, which is not installed: pip install omg-head-scribble"
    ):
        story.scribble_answer(model)


def test_a_broken_head_harms_no_other(installed, tmp_path, monkeypatch):
    points = {"omg_transformers.task_heads": {"broken": "omg_head_broken:BrokenHead"}}
    write_metadata(tmp_path, {"name": "omg-head-broken", "version": "0.3", "entry-points": points})
    (tmp_path / "omg_head_broken.py").write_text("raise ImportError('libfoo.so.3: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"broken", "scribble", "semantic"} <= set(available_heads())
    assert load_head("scribble").spec.name == "scribble"
    assert "broken" in failed_heads()
    assert "scribble" not in failed_heads()


def test_the_code_of_its_readme_runs(installed):
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
