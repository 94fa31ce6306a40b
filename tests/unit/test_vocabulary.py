"""Vocabularies: text towers, tables, caching, files."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import omg_transformers
from omg_transformers.labels import (
    PROMPT_TEMPLATES,
    LabelSpace,
    Vocabulary,
    builtin_label_space,
    builtin_label_space_names,
)

SPACE = LabelSpace.from_names(["person", "sofa|couch|settee", "green grass"])


class CountingTower:
    """A text encoder whose feature is the text's letters; counts what it encodes."""

    context_length = 12

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    def tokenize(self, texts):
        self.encoded += texts
        return torch.tensor([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])

    def encode(self, tokens):
        return tokens.float()


def letters(text: str) -> torch.Tensor:
    return F.normalize(CountingTower().tokenize([text]).float()[0], dim=0)


def table(**options) -> Vocabulary:
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    return Vocabulary.from_table(["person", "sofa", "couch", "settee", "green grass"], rows, **options)


@pytest.fixture(scope="module")
def tiny_open_clip() -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(width=16, heads=2, layers=1, output_dim=12)


# --- what class_embeds answers -----------------------------------------------------------------------------------


def test_class_embeds_are_unit_vectors_and_short_classes_repeat_their_first():
    embeds = table().class_embeds(SPACE)
    assert embeds.shape == (3, 3, 8)
    assert embeds.dtype == torch.float32
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(3, 3))
    assert torch.equal(embeds[0, 1], embeds[0, 0])
    assert torch.equal(embeds[2, 2], embeds[2, 0])
    assert not torch.equal(embeds[1, 1], embeds[1, 0])


def test_tower_averages_normalised_templates_then_normalises():
    templates = ["a {}.", "the big {}"]
    embeds = Vocabulary.from_tower(CountingTower(), templates=templates).class_embeds(
        LabelSpace.from_names(["Dog_house"])
    )
    expected = F.normalize((letters("a dog house.") + letters("the big dog house")) / 2, dim=0)
    torch.testing.assert_close(embeds[0, 0], expected)


def test_same_texts_give_the_same_tensor_and_other_templates_another():
    tower = CountingTower()
    vocabulary = Vocabulary.from_tower(tower)
    first = vocabulary.class_embeds(SPACE)
    encoded = len(tower.encoded)
    again = LabelSpace.from_names(["person", "sofa|couch|settee", "green grass"], things=[], name="other")
    assert vocabulary.class_embeds(again) is first
    assert len(tower.encoded) == encoded == 5 * len(PROMPT_TEMPLATES)
    other = vocabulary.class_embeds(SPACE, templates=["one {}"])
    assert not torch.equal(other, first)
    assert vocabulary.class_embeds(SPACE) is first


def test_a_known_name_in_a_new_space_is_not_encoded_again():
    tower = CountingTower()
    vocabulary = Vocabulary.from_tower(tower, templates=["a {}"])
    vocabulary.class_embeds(SPACE)
    vocabulary.class_embeds(LabelSpace.from_names(["person", "dog"]))
    assert tower.encoded[5:] == ["a dog"]


def test_center_is_taken_off_before_normalising():
    rows = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    center = torch.tensor([0.5, 0.5])
    vocabulary = Vocabulary.from_table(["a", "b"], rows, center=center)
    expected = F.normalize(torch.tensor([[0.5, -0.5], [-0.5, 0.5]]), dim=-1)
    torch.testing.assert_close(vocabulary.embed(["a", "b"]), expected)


# --- tables ------------------------------------------------------------------------------------------------------


def test_table_forgives_spelling():
    rows = torch.eye(4)
    vocabulary = Vocabulary.from_table(["tree", "t-shirt", "wall", "wall-wood"], rows)
    names = ["Tree-merged", "T shirt", "wall-other-merged", "WALL_wood"]
    assert torch.equal(vocabulary.embed(names), rows)


def test_table_names_every_unknown_name_with_its_nearest():
    with pytest.raises(ValueError, match=r"'persn' \(nearest: person\); 'sofas' \(nearest: sofa.*text tower"):
        table().class_embeds(LabelSpace.from_names(["persn", "sofas", "couch"]))


def test_known_names_and_knows_tell_what_a_table_holds():
    assert table().known_names == ("person", "sofa", "couch", "settee", "green grass")
    assert table().knows("Green_grass") and not table().knows("red grass")
    tower = Vocabulary.from_tower(CountingTower())
    assert tower.known_names is None and tower.knows("anything")


def test_table_refuses_templates():
    with pytest.raises(ValueError, match="is a table"):
        table().class_embeds(SPACE, templates=["a {}"])


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (["a"], torch.ones(2, 3), "1 names and embeddings of shape (2, 3)"),
        ([], torch.ones(0, 3), "0 names"),
        (["a", "A"], torch.ones(2, 3), "'A' and 'a'"),
        (["a", " "], torch.ones(2, 3), "the empty name ' '"),
        (["a", "b"], torch.tensor([[1.0], [0.0]]), "'b' is zero or not finite"),
        (["a", "b"], torch.tensor([[float("nan")], [1.0]]), "'a' is zero or not finite"),
    ],
)
def test_bad_table_says_which_row(names, rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Vocabulary.from_table(names, rows)


def test_bad_center_is_refused():
    with pytest.raises(ValueError, match=r"center has shape \(3,\): expected \(8,\)"):
        table(center=torch.zeros(3))


# --- towers ------------------------------------------------------------------------------------------------------


def test_name_too_long_for_the_tower_names_it_and_the_limit(tiny_open_clip):
    name = "very " * 80 + "long name"
    with pytest.raises(ValueError, match=r"label name 'very very.*needs 9\d tokens in the prompt .* reads 77: shorten"):
        Vocabulary.from_open_clip(tiny_open_clip).class_embeds(LabelSpace.from_names(["dog", name]))


def test_longest_name_that_fits_is_taken(tiny_open_clip):
    vocabulary = Vocabulary.from_open_clip(tiny_open_clip, templates=["{}"])
    assert vocabulary.embed(["dog " * 75]).shape == (1, 12)
    with pytest.raises(ValueError, match="needs 78 tokens"):
        vocabulary.embed(["dog " * 76])


def test_open_clip_model_by_name_without_weights(tmp_path):
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "omg-test-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "omg-test-tiny.json")
    embeds = Vocabulary.from_open_clip("omg-test-tiny").class_embeds(SPACE)
    assert embeds.shape == (3, 3, 12)
    assert not embeds.requires_grad


def test_unknown_open_clip_model_lists_the_nearest():
    with pytest.raises(ValueError, match=r"no model 'convnext_large_d_321'.*'convnext_large_d_320'"):
        Vocabulary.from_open_clip("convnext_large_d_321")


def write_clip_folder(folder: Path) -> None:
    """A CLIP text tower in the layout of the Hub, with random weights and CLIP's real tokenizer."""
    tokenizer = open_clip.SimpleTokenizer()
    words = dict(tokenizer.encoder)
    words["<|startoftext|>"], words["<|endoftext|>"] = words.pop("<start_of_text>"), words.pop("<end_of_text>")
    (folder / "vocab.json").write_text(json.dumps(words))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    config = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, projection_dim=12
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)


def test_transformers_tower_from_a_local_folder(tmp_path):
    write_clip_folder(tmp_path)
    vocabulary = Vocabulary.from_transformers(tmp_path)
    assert vocabulary.class_embeds(SPACE).shape == (3, 3, 12)
    assert vocabulary.embed(["dog"]).allclose(vocabulary.embed(["Dog", "a much longer name"])[0], atol=1e-6)
    with pytest.raises(ValueError, match="reads 77"):
        vocabulary.embed(["very " * 80])


def test_transformers_model_without_tokenizer_is_refused():
    with pytest.raises(ValueError, match="without `tokenizer`"):
        Vocabulary.from_transformers(torch.nn.Identity())


@pytest.mark.parametrize("templates", [[], "a {}", ["a photo"], ["{} and {}"], ["a {name}"]])
def test_bad_templates_are_refused(templates):
    with pytest.raises(ValueError, match="template"):
        Vocabulary.from_tower(CountingTower(), templates=templates)


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_table_round_trip_is_bit_for_bit(tmp_path, dtype):
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    vocabulary = Vocabulary.from_table(["person", "naïve café", "青い車"], rows, center=torch.rand(8) / 10)
    file = vocabulary.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert file == tmp_path / "vocabulary.safetensors"
    assert loaded.known_names == vocabulary.known_names
    assert torch.equal(loaded.embed(loaded.known_names), vocabulary.embed(vocabulary.known_names))
    assert Vocabulary.load(loaded.save(tmp_path / "again")).known_names == vocabulary.known_names
    assert (tmp_path / "again" / "vocabulary.safetensors").read_bytes() == file.read_bytes()


def test_saving_leaves_no_partial_file_and_replaces_the_old(tmp_path):
    table().save(tmp_path)
    Vocabulary.from_table(["other"], torch.ones(1, 2)).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.safetensors"]
    assert stat.S_IMODE((tmp_path / "vocabulary.safetensors").stat().st_mode) == 0o644
    assert Vocabulary.load(tmp_path).known_names == ("other",)


def test_tower_saves_the_names_it_has_encoded_as_a_table(tmp_path):
    vocabulary = Vocabulary.from_tower(CountingTower(), templates=["a {}"])
    with pytest.raises(ValueError, match="encoded no name yet"):
        vocabulary.save(tmp_path)
    vocabulary.save(tmp_path, label_spaces=[SPACE])
    loaded = Vocabulary.load(tmp_path)
    torch.testing.assert_close(loaded.class_embeds(SPACE), vocabulary.class_embeds(SPACE))
    assert not loaded.knows("dog")


def test_loading_what_is_no_vocabulary_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no vocabulary at"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Vocabulary.load(tmp_path)
    save_file({"weight": torch.ones(1)}, tmp_path / "vocabulary.safetensors")
    with pytest.raises(ValueError, match="is no vocabulary"):
        Vocabulary.load(tmp_path)


# --- the table that ships ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Vocabulary:
    return Vocabulary.load(Path(omg_transformers.__file__).parent / "default_model")


def test_shipped_table_knows_every_built_in_text(shipped):
    for name in builtin_label_space_names():
        space = builtin_label_space(name)
        assert shipped.class_embeds(space).shape[::2] == (len(space), 384)
        assert all(shipped.knows(label.dataset_name) for label in space.classes if label.dataset_name)


def test_shipped_table_knows_coloured_shapes_and_stays_small(shipped):
    assert all(shipped.knows(name) for name in ("red circle", "pink hexagon", "laptop screen", "gray ring"))
    file = Path(omg_transformers.__file__).parent / "default_model" / "vocabulary.safetensors"
    assert file.stat().st_size < 1.5 * 2**20


def test_shipped_vectors_put_synonyms_next_to_their_class(shipped):
    space = builtin_label_space("coco_panoptic")
    texts = [(label, text) for label, prompts in enumerate(space.prompts) for text in prompts]
    labels = torch.tensor([label for label, _ in texts])
    vectors = shipped.embed([text for _, text in texts])
    similarity = (vectors @ vectors.T).fill_diagonal_(-2)
    has_synonym = (labels[:, None] == labels).sum(1) > 1
    hits = labels[similarity.argmax(1)][has_synonym] == labels[has_synonym]
    assert int(has_synonym.sum()) == 191
    assert hits.float().mean() > 0.95
