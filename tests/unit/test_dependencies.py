"""What the code imports, what pyproject.toml asks for, and what the documentation explains are the same."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
IMPORT_NAMES = {"open_clip_torch": "open_clip", "pillow": "PIL", "pyyaml": "yaml"}
# Imported by functions of the public test kit only: who calls them runs pytest.
BROUGHT_BY_THE_CALLER = {"pytest"}
# The image processor resizes with it, through transformers' `TorchvisionBackend`.
THROUGH_TRANSFORMERS = {"torchvision"}
# Imported by the scripts that this package itself loads and runs, or for one launcher alone.
BROUGHT_BY_AN_EXTRA = {"evaluate", "deepspeed"}


def distribution(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group()


def imported_packages(*roots):
    packages, files = set(), 0
    for root in roots:
        for path in sorted((ROOT / root).rglob("*.py")):
            files += 1
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    packages |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    packages.add(node.module.partition(".")[0])
    assert files > 50, f"only {files} files were found under {roots}"
    own = {path.name for root in roots for path in (ROOT / root).iterdir() if path.is_dir()}
    return packages - own - set(sys.stdlib_module_names) - BROUGHT_BY_THE_CALLER - BROUGHT_BY_AN_EXTRA


@pytest.fixture
def required():
    return {distribution(requirement) for requirement in PROJECT["dependencies"]}


def test_every_import_is_a_declared_dependency(required):
    declared = {IMPORT_NAMES.get(name, name) for name in required}
    assert imported_packages("src", "task_heads") - declared == set()


def test_every_declared_dependency_is_imported(required):
    declared = {IMPORT_NAMES.get(name, name) for name in required}
    used = imported_packages("src", "task_heads", "recipes")
    assert declared - used == THROUGH_TRANSFORMERS


def test_the_page_explains_every_dependency_and_no_other(required):
    _, _, runtime, _ = re.split(r"^#+ .*$", PAGE, flags=re.MULTILINE)
    assert set(re.findall(r"^\| `([^`]+)` \|", runtime, flags=re.MULTILINE)) == required


def test_the_page_explains_every_extra_and_no_other():
    explained = set(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE, flags=re.MULTILINE))
    declared = {
        (extra, distribution(requirement))
        for extra, requirements in PROJECT["optional-dependencies"].items()
        for requirement in requirements
        if distribution(requirement) != PROJECT["name"]
    }
    assert explained == declared
