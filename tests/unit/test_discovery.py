"""Discovery of plug-ins: lazy, tolerant of broken plug-ins, strict about the one that is asked for."""

import subprocess
import sys
import textwrap

import pytest
from torch import nn

from omg_transformers import plugins
from omg_transformers.plugins import HeadLoadError

HEAD = """
from omg_transformers.plugins import HeadSpec
class Head:
    api_version = {version}
    spec = HeadSpec(name={name!r}, query_type={query_type!r})
    def targets(self, annotation): ...
    def postprocess(self, output, *, sizes, is_thing): ...
    def metric(self, *, num_classes): ...
    def example_annotation(self, *, seed, size, num_classes): ...
"""


def head_source(name, *, version=1, query_type="learned"):
    return HEAD.format(name=name, version=version, query_type=query_type)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with entry points and one module on the path, as an installer would."""

    def installed(distribution, *, module, source="", version="1.2", heads=None, encoders=None):
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = []
        for group, points in (("task_heads", heads), ("query_encoders", encoders)):
            lines += [f"[omg_transformers.{group}]"]
            lines += [f"{name} = {value}" for name, value in (points or {}).items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(folder))
        return folder

    yield installed
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]


def test_our_own_heads_are_listed():
    assert {"instance", "interactive", "panoptic", "semantic"} <= set(plugins.available_heads())


def test_listing_imports_neither_torch_nor_a_head():
    code = """
    import sys
    from omg_transformers import plugins
    names = plugins.available_heads()
    origins = [str(plugins.head_origin(name)) for name in names]
    assert names and len(origins) == len(names)
    print([m for m in sys.modules if m.partition(".")[0] in ("torch", "transformers", "numpy") or "omg_head" in m])
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_installed_head_is_found_and_loaded(install):
    install("omg-stranger", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    assert "odd" in plugins.available_heads()
    assert plugins.load_head("odd").spec.name == "odd"


def test_a_head_is_built_once(install):
    install("omg-stranger", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    assert plugins.load_head("odd") is plugins.load_head("odd")


def test_the_origin_of_a_head_is_told_without_importing_it(install):
    install("omg-stranger", module="stranger_a", source="raise ImportError", heads={"odd": "stranger_a:Head"})
    origin = plugins.head_origin("odd")
    assert (origin.distribution, origin.version, origin.value) == ("omg-stranger", "1.2", "stranger_a:Head")
    assert str(origin) == "omg-stranger 1.2 (stranger_a:Head)"


def test_an_unknown_head_names_the_installed_and_the_nearest(install):
    install("omg-stranger", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    with pytest.raises(LookupError, match=r"'panoptik'.*instance, interactive, odd, panoptic.*mean 'panoptic'\?"):
        plugins.load_head("panoptik")


BROKEN = {
    "import": ("raise ImportError('libfoo.so.3: cannot open')", r"ImportError: libfoo\.so\.3"),
    "exit": ("raise SystemExit(3)", r"SystemExit: 3"),
    "attribute": ("", r"AttributeError: .*no attribute 'Head'"),
    "constructor": ("class Head:\n    def __init__(self, size): ...", r"TypeError: .*size"),
    "old version": (head_source("odd", version=0), r"api_version 0, .*needs 1.*upgrade its distribution"),
    "new version": (head_source("odd", version=2), r"api_version 2, .*needs 1.*upgrade omg-transformers"),
    "no version": ("class Head: ...", r"api_version None"),
    "members": ("class Head:\n    api_version = 1", r"lacks spec, targets, postprocess, metric, example_annotation"),
    "spec": (head_source("odd").replace("spec = HeadSpec", "spec = dict"), r"spec of type dict.*HeadSpec"),
    "name": (head_source("even"), r"calls itself 'even'"),
    "query type": (head_source("odd", query_type="smell"), r"query type 'smell'.*Known: learned, prompt"),
}


@pytest.mark.parametrize(("source", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_head_is_an_error_that_names_its_origin_and_only_its_own(install, source, message):
    install("omg-stranger", module="stranger_a", source=source, heads={"odd": "stranger_a:Head"})
    install("omg-good", module="stranger_b", source=head_source("good"), heads={"good": "stranger_b:Head"})
    with pytest.raises(HeadLoadError, match=r"'odd' from omg-stranger 1\.2 \(stranger_a:Head\) .*" + message):
        plugins.load_head("odd")
    assert plugins.load_head("good").spec.name == "good"
    assert "odd" in plugins.available_heads()
    failures = plugins.failed_heads()
    assert "odd" in failures
    assert "good" not in failures


def test_the_error_of_a_broken_head_is_kept_with_its_cause(install):
    source = "import sys\nsys.stranger_imports = getattr(sys, 'stranger_imports', 0) + 1\nraise ImportError('no')"
    install("omg-stranger", module="stranger_a", source=source, heads={"odd": "stranger_a:Head"})
    for _ in range(2):
        with pytest.raises(HeadLoadError) as caught:
            plugins.load_head("odd")
        assert isinstance(caught.value.__cause__, ImportError)
    assert sys.stranger_imports == 1
    del sys.stranger_imports


def test_two_distributions_with_one_name_fail_only_when_it_is_asked_for(install):
    install("omg-first", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    install("omg-second", module="stranger_b", source=head_source("odd"), heads={"odd": "stranger_b:Head"})
    install("omg-good", module="stranger_c", source=head_source("good"), heads={"good": "stranger_c:Head"})
    assert {"odd", "good"} <= set(plugins.available_heads())
    assert plugins.load_head("good").spec.name == "good"
    message = r"'odd' is provided twice: by omg-first 1\.2 .* and by omg-second 1\.2 .*Uninstall one"
    with pytest.raises(HeadLoadError, match=message):
        plugins.load_head("odd")
    with pytest.raises(HeadLoadError, match=message):
        plugins.head_origin("odd")
    assert "provided twice" in plugins.failed_heads()["odd"]


def test_one_distribution_seen_through_two_folders_is_no_conflict(install, tmp_path, monkeypatch):
    install("omg-stranger", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    copy = tmp_path / "copy"
    (tmp_path / "omg-stranger").rename(copy)
    install("omg-stranger", module="stranger_a", source=head_source("odd"), heads={"odd": "stranger_a:Head"})
    monkeypatch.syspath_prepend(str(copy))
    assert plugins.load_head("odd").spec.name == "odd"


def test_metadata_without_a_version_breaks_nothing(install):
    folder = install("omg-stranger", module="stranger_a", heads={"odd": "stranger_a:Head"})
    (folder / "omg_stranger-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: omg-stranger\n")
    assert plugins.head_origin("odd").version == "(no version)"


def test_the_environment_narrows_the_heads(monkeypatch):
    monkeypatch.setenv("OMG_HEADS", " semantic, instance,")
    assert plugins.available_heads() == ["instance", "semantic"]
    with pytest.raises(LookupError, match=r"'panoptic' is installed, but OMG_HEADS=.* leaves it out"):
        plugins.load_head("panoptic")


def test_an_empty_environment_variable_narrows_nothing(monkeypatch):
    monkeypatch.delenv("OMG_HEADS", raising=False)
    everything = plugins.available_heads()
    monkeypatch.setenv("OMG_HEADS", "")
    assert plugins.available_heads() == everything


def test_a_misspelt_name_in_the_environment_is_reported_as_failed(monkeypatch):
    monkeypatch.setenv("OMG_HEADS", "semantik")
    assert plugins.available_heads() == []
    assert "Did you mean 'semantic'?" in plugins.failed_heads()["semantik"]


ENCODER = "from torch import nn\nclass Encoder(nn.Module): ..."


def test_a_query_encoder_is_loaded_as_a_class(install):
    install("omg-stranger", module="stranger_a", source=ENCODER, encoders={"smell": "stranger_a:Encoder"})
    assert plugins.available_query_encoders() == ["smell"]
    assert issubclass(plugins.load_query_encoder("smell"), nn.Module)
    assert plugins.query_encoder_origin("smell").distribution == "omg-stranger"


def test_a_head_may_ask_for_the_query_type_of_a_plug_in(install):
    source = ENCODER + head_source("odd", query_type="smell")
    points = {"heads": {"odd": "stranger_a:Head"}, "encoders": {"smell": "stranger_a:Encoder"}}
    install("omg-stranger", module="stranger_a", source=source, **points)
    assert plugins.load_head("odd").spec.query_type == "smell"


def test_an_unknown_query_encoder_is_a_lookup_error():
    with pytest.raises(LookupError, match=r"no query encoder is named 'smell'. Installed: none"):
        plugins.load_query_encoder("smell")


BROKEN_ENCODERS = {
    "import": ("smell", "raise ImportError('libfoo')", r"ImportError: libfoo"),
    "no module": ("smell", "class Encoder: ...", r"expected a subclass of torch\.nn\.Module"),
    "an instance": ("smell", "from torch import nn\nEncoder = nn.Identity()", r"expected a subclass"),
    "name of the core": ("prompt", ENCODER, r"query type of the core"),
}


@pytest.mark.parametrize(("name", "source", "message"), BROKEN_ENCODERS.values(), ids=BROKEN_ENCODERS)
def test_a_broken_query_encoder_is_an_error_that_names_its_origin(install, name, source, message):
    install("omg-stranger", module="stranger_a", source=source, encoders={name: "stranger_a:Encoder"})
    with pytest.raises(HeadLoadError, match=rf"'{name}' from omg-stranger 1\.2 .*{message}"):
        plugins.load_query_encoder(name)
    assert list(plugins.failed_query_encoders()) == [name]


def test_one_error_class_covers_every_kind_of_plug_in():
    assert issubclass(HeadLoadError, plugins.PluginLoadError)
