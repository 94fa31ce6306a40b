"""From names to the prototypes that the classifier compares queries with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omg_transformers.labels.name_table import NameTable, table_file
from omg_transformers.labels.names import clean_name
from omg_transformers.labels.text_towers import OpenClipTower, TextTower, TransformersTower

if TYPE_CHECKING:
    from omg_transformers.labels.label_space import LabelSpace

# The prompts of ViLD (Gu et al. 2022, appendix) as OMG-Seg uses them: every name is the mean over these.
PROMPT_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
# Each cached matrix of COCO's 133 classes x 17 texts x 768 channels is 7 MB.
_MAX_CACHED_MATRICES = 16
_TEXTS_PER_PASS = 256

ClassPrompts = tuple[tuple[str, ...], ...]


class Vocabulary:
    """Turns the names of a label space into unit vectors, by a text tower or by a table of known names.

    Built by `from_open_clip`, `from_transformers`, `from_tower`, `from_table` or `load`. center: (D,) or None, taken
    off every vector before it is normalised again: vectors of sentence encoders all lean one way, which hides
    differences. Vectors live on the CPU in float32.
    """

    def __init__(
        self,
        source: TextTower | NameTable,
        *,
        templates: Sequence[str] = PROMPT_TEMPLATES,
        center: Tensor | None = None,
    ) -> None:
        self._source = source
        self._templates = _checked_templates(templates)
        self._center = None if center is None else center.detach().float().cpu()
        self._vectors: dict[tuple[tuple[str, ...], str], Tensor] = {}
        self._matrices: OrderedDict[tuple[tuple[str, ...], ClassPrompts], Tensor] = OrderedDict()

    @classmethod
    def from_tower(
        cls, tower: TextTower, *, templates: Sequence[str] = PROMPT_TEMPLATES, center: Tensor | None = None
    ) -> Vocabulary:
        """Any text encoder that follows `TextTower`."""
        return cls(tower, templates=templates, center=center)

    @classmethod
    def from_open_clip(
        cls,
        model: str | nn.Module,
        pretrained: str | Path | None = None,
        *,
        tokenizer: Callable[..., Tensor] | None = None,
        templates: Sequence[str] = PROMPT_TEMPLATES,
        **options: Any,
    ) -> Vocabulary:
        """An open_clip text tower: a model name with a pretrained tag or local file, or a built model.

        pretrained=None gives random weights. tokenizer: for a built model, CLIP's own by default.
        """
        if isinstance(model, str):
            return cls(OpenClipTower.create(model, pretrained, **options), templates=templates)
        if tokenizer is None:
            import open_clip

            tokenizer = open_clip.SimpleTokenizer()
        return cls(OpenClipTower(model, tokenizer), templates=templates)

    @classmethod
    def from_transformers(
        cls, model: str | Path | nn.Module, tokenizer: Any = None, *, templates: Sequence[str] = PROMPT_TEMPLATES
    ) -> Vocabulary:
        """A CLIP text tower of transformers: a folder, or a `CLIPTextModelWithProjection` with its tokenizer."""
        if isinstance(model, (str, Path)):
            return cls(TransformersTower.load(model), templates=templates)
        if tokenizer is None:
            raise ValueError("from_transformers got a model without `tokenizer`: pass both, or the folder they lie in")
        return cls(TransformersTower(model, tokenizer), templates=templates)

    @classmethod
    def from_table(cls, names: Sequence[str], embeddings: Tensor, *, center: Tensor | None = None) -> Vocabulary:
        """Known names only. embeddings: (N, D), one row per name, any length but zero; `save` keeps their precision."""
        table = NameTable(names, embeddings)
        if center is not None and (center.shape != embeddings.shape[1:] or not torch.isfinite(center).all()):
            raise ValueError(f"center has shape {tuple(center.shape)}: expected ({embeddings.shape[1]},), all finite")
        return cls(table, center=center)

    @classmethod
    def load(cls, folder: str | Path) -> Vocabulary:
        """Read the table that `save` wrote. folder: the folder, or the file itself."""
        names, embeddings, center = NameTable.read(table_file(folder))
        return cls.from_table(names, embeddings, center=center)

    @property
    def known_names(self) -> tuple[str, ...] | None:
        """The names of the table; None for a text tower, which takes any name."""
        return self._source.names if isinstance(self._source, NameTable) else None

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt templates of the text tower; a table has none, its vectors were made before."""
        return () if isinstance(self._source, NameTable) else self._templates

    def knows(self, name: str) -> bool:
        """Whether `class_embeds` would take this name."""
        return not isinstance(self._source, NameTable) or self._source.find(name) is not None

    def class_embeds(self, label_space: LabelSpace, *, templates: Sequence[str] | None = None) -> Tensor:
        """Prototypes (K, P, D): unit vectors, P the largest number of texts of a class, others repeat their first.

        The same texts give the same tensor again: do not write to it. templates: instead of the vocabulary's own.
        Unknown names (table) and names too long for the tower: ValueError.
        """
        if templates is not None and isinstance(self._source, NameTable):
            raise ValueError("this vocabulary is a table, made before: templates cannot change it; leave them out")
        used = self.templates if templates is None else _checked_templates(templates)
        key = (used, label_space.prompts)
        if key not in self._matrices:
            vectors = self._encode([text for texts in label_space.prompts for text in texts], used)
            self._matrices[key] = _stack_prototypes(label_space.prompts, vectors)
            if len(self._matrices) > _MAX_CACHED_MATRICES:
                self._matrices.popitem(last=False)
        self._matrices.move_to_end(key)
        return self._matrices[key]

    def embed(self, names: Sequence[str]) -> Tensor:
        """One unit vector per name, (N, D)."""
        vectors = self._encode(names, self.templates)
        return torch.stack([vectors[name] for name in names])

    def save(self, folder: str | Path, *, label_spaces: Sequence[LabelSpace] = ()) -> Path:
        """Write a table: all known names, or for a tower the names of `label_spaces` and those encoded so far.

        Returns the file, `folder`/vocabulary.safetensors. The tower itself is not saved.
        """
        if isinstance(self._source, NameTable):
            return self._source.write(table_file(folder), center=self._center)
        for label_space in label_spaces:
            self.class_embeds(label_space)
        names = [name for templates, name in self._vectors if templates == self._templates]
        if not names:
            raise ValueError("this vocabulary has encoded no name yet: pass `label_spaces` to choose what is saved")
        rows = torch.stack([self._vectors[self._templates, name] for name in names])
        return NameTable(names, rows).write(table_file(folder), center=self._center)

    def _encode(self, names: Sequence[str], templates: tuple[str, ...]) -> Mapping[str, Tensor]:
        """Per name its unit vector, centred."""
        if isinstance(self._source, NameTable):
            raw = self._source.rows(names)
        else:
            raw = self._tower_rows(self._source, names, templates)
        rows = raw if self._center is None else F.normalize(raw - self._center, dim=-1)
        return dict(zip(names, rows, strict=True))

    def _tower_rows(self, tower: TextTower, names: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        cleaned = [clean_name(name) for name in names]
        missing = [name for name in dict.fromkeys(cleaned) if (templates, name) not in self._vectors]
        for name in missing:
            _check_length(tower, name, templates)
        names_per_pass = max(1, _TEXTS_PER_PASS // len(templates))
        for start in range(0, len(missing), names_per_pass):
            chunk = missing[start : start + names_per_pass]
            texts = [template.format(name) for name in chunk for template in templates]
            features = F.normalize(tower.encode(tower.tokenize(texts)), dim=-1)
            means = F.normalize(features.reshape(len(chunk), len(templates), -1).mean(1), dim=-1)
            self._vectors.update({(templates, name): mean for name, mean in zip(chunk, means, strict=True)})
        return torch.stack([self._vectors[templates, name] for name in cleaned])


def _checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str) or not templates:
        raise ValueError(f"templates is {templates!r}: give a list with at least one text such as 'a photo of a {{}}.'")
    for template in templates:
        if template.count("{}") != 1 or "{" in template.replace("{}", ""):
            raise ValueError(f"template {template!r} must hold '{{}}' once, where the name goes, and no other brace")
    return tuple(templates)


def _check_length(tower: TextTower, name: str, templates: Sequence[str]) -> None:
    needed, template = max((tower.count_tokens(template.format(name)), template) for template in templates)
    if needed > tower.context_length:
        raise ValueError(
            f"label name {name!r} needs {needed} tokens in the prompt {template!r}, but the text tower reads "
            f"{tower.context_length}: shorten the name"
        )


def _stack_prototypes(prompts: ClassPrompts, vectors: Mapping[str, Tensor]) -> Tensor:
    """(K, P, D); classes with fewer texts repeat their first."""
    width = max(len(texts) for texts in prompts)
    return torch.stack(
        [torch.stack([vectors[text] for text in (*texts, *[texts[0]] * (width - len(texts)))]) for texts in prompts]
    )
