"""The text tower that belongs to a model's backbone, as `--text-tower` names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omg_transformers.labels import Vocabulary
    from omg_transformers.model import OMGSegConfig


def open_text_tower(config: OMGSegConfig, weights: str) -> Vocabulary:
    """Any text to embeddings, by the open_clip model whose visual trunk is the backbone.

    weights: an open_clip tag of that model, or a local file. ValueError: no such weights, or they do not fit.
    """
    import open_clip

    from omg_transformers.labels import Vocabulary

    name = config.backbone_name
    if config.backbone_kind != "open_clip" or name is None:
        raise ValueError(
            f"--text-tower needs a model with an open_clip backbone, and this one has {name!r} of "
            f"{config.backbone_kind}: ask it only for names of its table"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(weights).is_file() and weights not in tags:
        raise ValueError(
            f"--text-tower {weights!r} is no file, and open_clip has no such weights of {name}: "
            f"expected a file or one of {', '.join(tags) or 'none'}"
        )
    if (width := open_clip.get_model_config(name)["embed_dim"]) != config.text_dim:
        raise ValueError(
            f"--text-tower of {name} makes vectors of {width} values and this model reads {config.text_dim}: "
            "its names were embedded by another tower"
        )
    return Vocabulary.from_open_clip(name, weights)
