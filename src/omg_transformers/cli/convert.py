"""Convert a checkpoint of the original OMG-Seg into a folder that `from_pretrained` loads."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "convert original OMG-Seg weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, output folder, and where names get their embeddings."""
    parser.add_argument("checkpoint", type=Path, help="the original .pth file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it is made when missing")
    parser.add_argument(
        "--text-tower",
        metavar="TAG|FILE",
        help="open_clip weights of the backbone's text tower, a tag or a local file: writes the vocabulary, so that "
        "class names can be used (laion2b_s29b_b131k_ft_soup for the published model)",
    )


def run(options: argparse.Namespace) -> int:
    """Convert; the errors list every missing and foreign key."""
    from omg_transformers.cli.folders import prepare_folder

    if not options.checkpoint.is_file():
        raise ValueError(f"there is no checkpoint at {options.checkpoint}: check the path")
    prepare_folder(options.out)
    from omg_transformers import OMGSegConfig, OMGSegImageProcessor, OMGSegProcessor
    from omg_transformers.cli.text_tower import open_text_tower
    from omg_transformers.labels import LabelSpace
    from omg_transformers.model.convert import convert_checkpoint

    folder = convert_checkpoint(options.checkpoint, options.out)
    config = OMGSegConfig.from_pretrained(folder)
    spaces = [LabelSpace.from_dict(space) for space in (config.label_spaces or {}).values()]
    vocabulary = None if options.text_tower is None else open_text_tower(config, options.text_tower)
    image_processor = OMGSegImageProcessor(size={"shortest_edge": 800, "longest_edge": 1333})
    processor = OMGSegProcessor(image_processor, label_space=spaces[0] if spaces else None, vocabulary=vocabulary)
    processor.save_pretrained(folder, label_spaces=spaces)
    print(f"converted: {folder}")
    if vocabulary is None:
        print("class names cannot be used yet: convert again with --text-tower, or save a processor with a vocabulary")
    return 0
