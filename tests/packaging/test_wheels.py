"""The wheel in a fresh environment, with a stranger's head installed beside it, broken and removed again."""

import hashlib
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "third_party_head"
STORY = Path(__file__).with_name("scribble_story.py")
SHIPPED = {
    "instance", "interactive", "panoptic", "semantic",
    "video_instance", "video_object", "video_panoptic", "video_semantic",
}  # fmt: skip
BROKEN_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "omg-head-broken"
version = "0.3"
[project.entry-points."omg_transformers.task_heads"]
broken = "omg_head_broken:BrokenHead"
[tool.hatch.build.targets.wheel]
packages = ["omg_head_broken"]
"""


def run(*command, **options):
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def pip(*arguments):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def build_wheel(project, folder):
    # Without isolation, so that nothing is downloaded: the build backend of this environment is used.
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, project)
    return folder


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def source():
    """The core's files as they were before any wheel was built."""
    return digests(ROOT / "src" / "omg_transformers")


@pytest.fixture(scope="module")
def wheels(source, tmp_path_factory):
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheels")
    broken = tmp_path_factory.mktemp("broken")
    (broken / "pyproject.toml").write_text(BROKEN_PROJECT)
    (broken / "omg_head_broken").mkdir()
    (broken / "omg_head_broken" / "__init__.py").write_text("raise ImportError('libfoo.so.3: cannot open')\n")
    for project in (ROOT, EXAMPLE, broken):
        build_wheel(project, folder)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


class Environment:
    """A fresh virtual environment that borrows the large dependencies of the running one.

    A .pth file lends their folder, since another download of torch would need a network and minutes. Python reads no
    .pth file inside a lent folder, so an editable install of this project there stays out of sight; the environment's
    own packages come first on the path.
    """

    def __init__(self, folder):
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"
        self.packages = Path(self.ask("import sysconfig; print(sysconfig.get_path('purelib'))"))
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def ask(self, code, **variables):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        cwd = self.python.parent  # not the checkout, whose folders would be found first
        return run(self.python, "-c", textwrap.dedent(code), env={**environment, **variables}, cwd=cwd).strip()

    def install(self, wheel):
        pip("--python", self.python, "install", "--no-deps", "--no-index", "--force-reinstall", wheel)

    def remove(self, distribution):
        pip("--python", self.python, "uninstall", "--yes", distribution)

    def tell(self, chapter, folder):
        run(self.python, STORY, chapter, folder, cwd=self.python.parent)

    def heads(self):
        return set(self.ask("from omg_transformers.plugins import available_heads as a; print(*a())").split())


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.install(wheels["omg_transformers"])
    return environment


def test_the_wheel_is_used_and_not_the_checkout(environment):
    where = environment.ask("import omg_transformers.plugins as p; print(p.__file__)")
    assert Path(where).is_relative_to(environment.packages)


def test_the_wheel_brings_the_heads_we_ship(environment):
    assert environment.heads() >= SHIPPED
    code = "from omg_transformers.plugins import failed_heads; print(failed_heads())"
    assert environment.ask(code) == "{}"


def test_the_wheel_holds_every_source_file(environment, source):
    assert len(source) > 50
    assert digests(environment.packages / "omg_transformers") == source


def test_a_strangers_head_is_installed_trained_and_refused_and_no_core_file_differs(
    environment, wheels, source, tmp_path
):
    environment.install(wheels["omg_head_scribble"])
    assert environment.heads() == {*SHIPPED, "scribble"}
    environment.tell("with", tmp_path)
    environment.remove("omg-head-scribble")
    environment.tell("without", tmp_path)
    assert digests(environment.packages / "omg_transformers") == source


def test_a_broken_head_harms_no_other(environment, wheels):
    environment.install(wheels["omg_head_broken"])
    code = """
    from omg_transformers.plugins import HeadLoadError, available_heads, failed_heads, load_head
    assert "broken" in available_heads()
    assert list(failed_heads()) == ["broken"]
    assert load_head("semantic").spec.name == "semantic"
    try:
        load_head("broken")
    except HeadLoadError as error:
        print(error)
    """
    try:
        assert "omg-head-broken 0.3 (omg_head_broken:BrokenHead)" in environment.ask(code)
    finally:
        environment.remove("omg-head-broken")
