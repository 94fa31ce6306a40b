"""Every code block of README and documentation runs, in the order in which it is read."""

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image

from omg_transformers import default_checkpoint
from omg_transformers.cli import build_parser
from omg_transformers.cli import main as omg_seg
from omg_transformers.training.command_line import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
# How many blocks each page has: a page that loses its blocks, or a parser that misses them, fails.
NUM_BLOCKS = {
    "README.md": {"bash": 4, "python": 5},
    "CONTRIBUTING.md": {"bash": 1},
    "docs/command_line.md": {"bash": 2, "python": 3},
    "docs/data.md": {"python": 1},
    "docs/data_doctor.md": {"bash": 1, "python": 2},
    "docs/evaluation.md": {"python": 1},
    "docs/heads.md": {"python": 2},
    "docs/labels.md": {"python": 3},
    "docs/metrics.md": {"bash": 1, "python": 1},
    "docs/prompts.md": {"python": 2},
    "docs/video.md": {"python": 4},
    "docs/training.md": {"bash": 6, "python": 1, "yaml": 1},
}
DISPLAYED_ONLY = {"text", "toml", "mermaid"}
PICTURES = ("cat.jpg", "street.jpg", "pictures/one.jpg", "pictures/two.png")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    code: str


def pages():
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*found, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path):
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start(2))
        yield Block(str(path.relative_to(ROOT)), line, match[1], match[2])


BLOCKS = [block for path in pages() for block in blocks_of(path)]
RUNNABLE = [block for block in BLOCKS if block.language not in DISPLAYED_ONLY and not block.language.startswith("{")]


def run_python(block, names):
    padding = "\n" * block.line  # so that a traceback shows the line of the page
    exec(compile(padding + block.code, ROOT / block.page, "exec"), names)


def run_line(line, recipe_settings):
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    match words:
        case []:
            pass
        case ["make", *targets]:
            known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
            assert set(targets) <= known
        case ["pip", "install", *_]:
            pass  # the tests of the wheel install it
        case ["omg-seg", *arguments] if {"convert", "score", "evaluate", "compare", "--model"} & set(words):
            build_parser().parse_args(arguments)  # it needs weights or a data set that are not here
        case ["omg-seg", *arguments]:
            assert omg_seg(arguments) == 0
        case ["accelerate", "launch", *_] if "omg_transformers" in words:
            # tests/unit/test_cli_segment_shards.py runs one
            build_parser().parse_args(words[words.index("omg_transformers") + 1 :])
        case ["accelerate", "launch", *arguments]:
            recipe_settings(arguments)
        case ["python" | "pytest", script, *_]:
            assert (ROOT / script).exists()
        case _:
            raise AssertionError(f"this test does not know how to try {line!r}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the pictures that the pages name."""
    for index, name in enumerate(PICTURES):
        noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recipe_settings(monkeypatch):
    """Reads a recipe's settings as its command line would, without running it."""

    def read(arguments):
        position = next(index for index, word in enumerate(arguments) if re.fullmatch(r"recipes/\w+\.py", word))
        script, *words = arguments[position:]
        spec = importlib.util.spec_from_file_location(f"docs_{Path(script).stem}", ROOT / script)
        recipe = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, recipe)
        spec.loader.exec_module(recipe)
        monkeypatch.setattr(sys, "argv", [script, *words])
        with monkeypatch.context() as context:
            context.chdir(ROOT)
            return parse_recipe(recipe.Settings, "")

    return read


def test_every_block_was_found():
    found = {}
    for block in RUNNABLE:
        counts = found.setdefault(block.page, {})
        counts[block.language] = counts.get(block.language, 0) + 1
    assert found == NUM_BLOCKS


@pytest.mark.parametrize("page", sorted(NUM_BLOCKS))
def test_the_blocks_of_a_page_run(page, folder, recipe_settings, monkeypatch):
    blocks = [block for block in RUNNABLE if block.page == page]
    needs_default = any(re.search("omg-segmentation|omg-seg|default_checkpoint", block.code) for block in blocks)
    if needs_default and not (default_checkpoint() / "model.safetensors").is_file():
        pytest.skip("the default model is not in this checkout")
    module = ModuleType(re.sub(r"\W", "_", page))  # a real one: what a page defines can be pickled
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks:
        match block.language:
            case "python":
                run_python(block, vars(module))
            case "bash":
                for line in block.code.splitlines():
                    run_line(line, recipe_settings)
            case "yaml":
                yaml.safe_load(block.code)
            case other:
                raise AssertionError(f"{page}:{block.line}: blocks are python, bash, yaml or text, not {other!r}")
