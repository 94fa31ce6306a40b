"""Text towers: texts in, features out. One adapter per library that brings CLIP text encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from omg_transformers.labels.names import nearest_hint


class TextTower(Protocol):
    """What a vocabulary needs of a text encoder."""

    context_length: int

    def count_tokens(self, text: str) -> int:
        """How many tokens the text needs, start and end included; may exceed `context_length`."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(N, L) int64, L at most `context_length`."""

    def encode(self, tokens: Tensor) -> Tensor:
        """(N, L) tokens to (N, D) float32 features, before any normalisation, without gradient."""


class OpenClipTower:
    """The text half of an open_clip model. model: anything with `encode_text`, or a bare text tower.

    tokenizer: an open_clip tokenizer; texts to an (N, L) tensor.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable[..., Tensor]) -> None:
        self._encode: Callable[[Tensor], Tensor] = getattr(model.eval(), "encode_text", model)
        self._device = next(model.parameters()).device
        self._tokenizer = tokenizer
        self.context_length = int(tokenizer([""]).shape[1])

    @classmethod
    def create(cls, model_name: str, pretrained: str | Path | None = None, **options: Any) -> OpenClipTower:
        """Build the model by name. pretrained: an open_clip tag, a local file, or None (random weights).

        options go to `open_clip.create_model` (`cache_dir`, `device`, ...). The picture half is dropped.
        """
        import open_clip

        is_place = model_name.startswith(("hf-hub:", "local-dir:"))
        if not is_place and model_name.replace("/", "-") not in open_clip.list_models():
            raise ValueError(
                f"open_clip has no model {model_name!r}{nearest_hint(model_name, open_clip.list_models())}"
            )
        model = open_clip.create_model(
            model_name, pretrained=None if pretrained is None else str(pretrained), **options
        )
        model.visual = nn.Identity()
        return cls(model, open_clip.get_tokenizer(model_name))

    def count_tokens(self, text: str) -> int:
        """How many tokens the text needs, start and end included."""
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(text)) + 2
        # open_clip's tokenizers from transformers truncate: ask the wrapped one for the full length.
        wrapped = getattr(self._tokenizer, "tokenizer", None)
        return self.context_length if wrapped is None else len(wrapped(text)["input_ids"])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(N, context_length) int64, zero padded for CLIP's own tokenizer."""
        return self._tokenizer(list(texts))

    @torch.no_grad()
    def encode(self, tokens: Tensor) -> Tensor:
        """(N, L) tokens to (N, D) float32 features on the CPU."""
        return self._encode(tokens.to(self._device)).float().cpu()


class TransformersTower:
    """A `CLIPTextModelWithProjection` of transformers with its `CLIPTokenizer`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self.context_length = int(model.config.max_position_embeddings)

    @classmethod
    def load(cls, folder: str | Path) -> TransformersTower:
        """Load model and tokenizer from a local folder or a Hub id."""
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        return cls(CLIPTextModelWithProjection.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))

    def count_tokens(self, text: str) -> int:
        """How many tokens the text needs, start and end included."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(N, L) int64, padded to `context_length`."""
        return self._tokenizer(
            list(texts), padding="max_length", max_length=self.context_length, truncation=True, return_tensors="pt"
        )["input_ids"]

    @torch.no_grad()
    def encode(self, tokens: Tensor) -> Tensor:
        """(N, L) tokens to (N, D) float32 features on the CPU.

        CLIP's attention is causal and its feature is read at the end token, so what pads behind it changes nothing.
        """
        return self._model(input_ids=tokens.to(self._model.device)).text_embeds.float().cpu()
