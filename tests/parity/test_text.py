"""Replays the text classifier of the original: splitting, templates, tokens, features, averaged prototypes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from omg_transformers.labels import PROMPT_TEMPLATES, LabelClass, LabelSpace, Vocabulary, split_names
from omg_transformers.labels.text_towers import OpenClipTower

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden(golden_model) -> tuple[dict[str, Any], dict[str, Tensor]]:
    meta = json.loads((golden_model / "text.json").read_text())["meta"]
    return meta, load_file(golden_model / "text.safetensors")


@pytest.fixture(scope="module")
def space(golden) -> LabelSpace:
    groups = [split_names(text) for text in golden[0]["classes"]]
    return LabelSpace("golden", tuple(LabelClass(g[0], g[1:], dataset_id=i) for i, g in enumerate(groups)))


def full_embedding(tensors: Mapping[str, Tensor]) -> Tensor:
    rows = tensors["token_embedding_rows"]
    table = torch.zeros(open_clip.SimpleTokenizer().vocab_size, rows.shape[1])
    table[tensors["used_token_ids"]] = rows
    return table


def open_clip_tower(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TextTransformer:
    context_length, width = tensors["weights.text_pe"].shape
    tower = TextTransformer(
        context_length=context_length,
        vocab_size=open_clip.SimpleTokenizer().vocab_size,
        width=width,
        heads=meta["heads"],
        layers=meta["layers"],
        output_dim=tensors["weights.text_proj"].shape[1],
        act_layer=open_clip.transformer.QuickGELU if meta["quick_gelu"] else torch.nn.GELU,
    )
    names = {"text_transformer.": "transformer.", "text_pe": "positional_embedding", "text_ln_final.": "ln_final."}
    names |= {"text_proj": "text_projection"}
    state = {"token_embedding.weight": full_embedding(tensors)}
    for key, tensor in tensors.items():
        for theirs, ours in names.items():
            if key.startswith(f"weights.{theirs}"):
                state[key.replace(f"weights.{theirs}", ours, 1)] = tensor
    missing, unexpected = tower.load_state_dict(state, strict=False)
    assert not unexpected and not missing
    assert torch.equal(tower.attn_mask, tensors["weights.text_attn_mask"])
    return tower.eval()


class PaddingTokenizer:
    """transformers' call, CLIP's own tokens: the vocabulary files of the Hub are not needed."""

    def __init__(self, context_length: int) -> None:
        self.tokens = open_clip.SimpleTokenizer(context_length=context_length)

    def __call__(self, texts, **options):
        if isinstance(texts, str):
            return {"input_ids": [0, *self.tokens.encode(texts), 0]}
        return {"input_ids": self.tokens(texts)}


def transformers_tower(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CLIPTextModelWithProjection:
    context_length, width = tensors["weights.text_pe"].shape
    tokenizer = open_clip.SimpleTokenizer()
    config = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        intermediate_size=tensors["weights.text_transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        projection_dim=tensors["weights.text_proj"].shape[1],
        num_hidden_layers=meta["layers"],
        num_attention_heads=meta["heads"],
        max_position_embeddings=context_length,
        hidden_act="quick_gelu" if meta["quick_gelu"] else "gelu",
        bos_token_id=tokenizer.sot_token_id,
        eos_token_id=tokenizer.eot_token_id,
    )
    model = CLIPTextModelWithProjection(config)
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(r"weights\.text_transformer\.resblocks\.(\d+)\.(.+)", key)
        if found and "in_proj" in key:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[f"encoder.layers.{found[1]}.self_attn.{part}_proj.{key.rsplit('_', 1)[1]}"] = piece
        elif found:
            name = found[2].replace("attn.out_proj", "self_attn.out_proj").replace("ln_", "layer_norm")
            state[f"encoder.layers.{found[1]}.{name.replace('c_fc', 'fc1').replace('c_proj', 'fc2')}"] = tensor
    state["embeddings.token_embedding.weight"] = full_embedding(tensors)
    state["embeddings.position_embedding.weight"] = tensors["weights.text_pe"]
    state |= {f"final_layer_norm.{kind}": tensors[f"weights.text_ln_final.{kind}"] for kind in ("weight", "bias")}
    missing, unexpected = model.text_model.load_state_dict(state, strict=False)
    assert not unexpected and not [key for key in missing if not key.endswith("position_ids")]
    model.text_projection.weight.data = tensors["weights.text_proj"].T.contiguous()
    return model.eval()


def test_split_and_templates_are_those_of_the_original(golden):
    meta, tensors = golden
    split = [list(split_names(text)) for text in meta["classes"]]
    assert split == meta["split"]
    assert list(PROMPT_TEMPLATES) == meta["templates"]
    texts = [template.format(name) for names in split for name in names for template in PROMPT_TEMPLATES]
    assert texts == meta["descriptions"]
    assert len(texts) == len(tensors["tokens"]) == 14 * sum(map(len, split)) >= 14 * len(meta["classes"]) > 0


def test_tokens_are_equal_and_features_agree(golden):
    meta, tensors = golden
    tower = OpenClipTower(open_clip_tower(meta, tensors), open_clip.SimpleTokenizer())
    tokens = tower.tokenize(meta["descriptions"])
    assert torch.equal(tokens, tensors["tokens"])
    torch.testing.assert_close(tower.encode(tokens), tensors["text_features"], atol=TOLERANCE, rtol=0)


def test_open_clip_prototypes_agree(golden, space):
    embeds = Vocabulary.from_open_clip(open_clip_tower(*golden)).class_embeds(space)
    assert embeds.shape == golden[1]["classifier"].shape
    torch.testing.assert_close(embeds, golden[1]["classifier"], atol=TOLERANCE, rtol=0)


def test_transformers_prototypes_agree(golden, space):
    context_length = len(golden[1]["weights.text_pe"])
    vocabulary = Vocabulary.from_transformers(transformers_tower(*golden), PaddingTokenizer(context_length))
    torch.testing.assert_close(vocabulary.class_embeds(space), golden[1]["classifier"], atol=TOLERANCE, rtol=0)


def test_other_templates_miss_the_original(golden, space):
    embeds = Vocabulary.from_open_clip(open_clip_tower(*golden), templates=["a photo of a {}."]).class_embeds(space)
    assert (embeds - golden[1]["classifier"]).abs().max() > 100 * TOLERANCE
