"""Seconds per picture of the full-size model, part by part, beside the stock Mask2Former classes of transformers.

    python benchmarks/model_speed.py            # a few minutes, on an idle machine; writes model_speed.json beside this
    python benchmarks/model_speed.py --compile  # our model under torch.compile as well
    python benchmarks/model_speed.py --tiny     # seconds; only shows that the script runs

Weights are random: these figures say how fast the layers run and nothing about what they find. Both models read the
same ConvNeXt-L trunk (one module), have the same sizes and share the weights of the pixel decoder, whose outputs are
compared. One picture of 640 x 640, 300 queries, the 133 names of COCO (ours with all synonyms), float32, inference
mode. Every repeat runs each part once, ours and theirs in turn, so that a slow minute of the machine falls on both.
A query decoder goes from the pixel decoder's maps to final masks and class logits.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
import transformers
from torch import Tensor, nn
from transformers import ConvNextConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from omg_transformers import OMGSegConfig, OMGSegModel
from omg_transformers.labels import builtin_label_space
from omg_transformers.model.padding import Content

if TYPE_CHECKING:
    from collections.abc import Callable

BACKBONE = "backbone"
OURS_TOTAL, THEIRS_TOTAL = "end to end, ours", "end to end, transformers"
OURS_PIXELS, THEIRS_PIXELS = "pixel decoder, ours", "pixel decoder, transformers"
OURS_QUERIES, THEIRS_QUERIES = "query decoder, ours", "query decoder, transformers"
COMPILED = "end to end, ours compiled"
# Name of the figure, numerator, denominator, goal, whether more is better.
RATIOS = (
    ("end to end: times faster", THEIRS_TOTAL, OURS_TOTAL, 1.4, True),
    ("query decoder: times faster", THEIRS_QUERIES, OURS_QUERIES, 2.5, True),
    ("pixel decoder: times faster", THEIRS_PIXELS, OURS_PIXELS, 2.0, True),
    ("ours end to end / bare backbone", OURS_TOTAL, BACKBONE, 1.35, False),
)
# Cells: trained offsets spread; the initial ones are the same for all tokens, which caches like too well.
OFFSET_SPREAD = 0.1
PIXEL_DECODER_NAMES = (
    ("encoder.layers.", "layers."),
    ("self_attn.", "attention."),
    ("self_attn_layer_norm.", "attention_norm."),
    ("final_layer_norm.", "ffn_norm."),
    ("adapter_1.0.", "lateral_projection.convolution."),
    ("adapter_1.1.", "lateral_projection.norm."),
    ("layer_1.0.", "output_convolution.convolution."),
    ("layer_1.1.", "output_convolution.norm."),
    ("level_embed", "level_embedding.weight"),
)


class SharedTrunk(nn.Module):
    """Our backbone in the form that Mask2Former expects of its own."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, list(backbone.channels)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        content = Content(None, (pixel_values.shape[-2], pixel_values.shape[-1]))
        return SimpleNamespace(feature_maps=tuple(self.backbone(pixel_values, content)))


def build_ours(config: OMGSegConfig) -> OMGSegModel:
    model = OMGSegModel(config).eval()
    with torch.no_grad():
        for layer in model.pixel_decoder.layers:
            nn.init.normal_(layer.attention.sampling_offsets.weight, std=OFFSET_SPREAD)
            nn.init.normal_(layer.attention.attention_weights.weight, std=OFFSET_SPREAD)
    return model


def build_theirs(ours: OMGSegModel, num_classes: int) -> Mask2FormerForUniversalSegmentation:
    """Mask2Former of the same sizes, on the same trunk, with the same pixel decoder weights."""
    config, channels = ours.config, list(ours.backbone.channels)
    theirs = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            # Right widths, one block per stage: thrown away below.
            backbone_config=ConvNextConfig(
                hidden_sizes=channels, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
            ),
            feature_size=config.hidden_size,
            mask_feature_size=config.hidden_size,
            hidden_dim=config.hidden_size,
            encoder_layers=config.pixel_decoder_layers,
            encoder_feedforward_dim=config.pixel_decoder_ffn_size,
            decoder_layers=config.decoder_layers + 1,  # it builds one less
            dim_feedforward=config.decoder_ffn_size,
            num_attention_heads=config.num_attention_heads,
            num_queries=config.num_queries,
            num_labels=num_classes,
        )
    ).eval()
    module = theirs.model.pixel_level_module
    module.encoder = SharedTrunk(ours.backbone)
    module.decoder.load_state_dict(pixel_decoder_weights(ours, module.decoder))
    return theirs


def pixel_decoder_weights(ours: OMGSegModel, theirs: nn.Module) -> dict[str, Tensor]:
    """The weights of our pixel decoder under their names."""
    own, renamed = ours.pixel_decoder.state_dict(), {}
    for name in theirs.state_dict():
        ours_name = name
        for part, replacement in PIXEL_DECODER_NAMES:
            ours_name = ours_name.replace(part, replacement)
        if ours_name.startswith("input_projections."):
            _, level, index, kind = ours_name.split(".")
            ours_name = f"input_projections.{level}.{('convolution', 'norm')[int(index)]}.{kind}"
        renamed[name] = own[ours_name]
    return renamed


def build_parts(
    ours: OMGSegModel, theirs: Mask2FormerForUniversalSegmentation, pixels: Tensor, class_embeds: Tensor
) -> dict[str, Callable[[], object]]:
    """What is timed, in the order of one repeat. The inputs of the later parts are computed once, here."""
    content = Content(None, (pixels.shape[-2], pixels.shape[-1]))
    maps = ours.backbone(pixels, content)
    our_maps = ours.pixel_decoder(maps, content)
    their_maps = theirs.model.pixel_level_module.decoder(maps)

    def ask_ours() -> object:
        features = ours.query_decoder.prepare(*our_maps, maps[-1], content, num_frames=1)
        return ours(image_features=features, class_embeds=class_embeds)

    def ask_theirs() -> object:
        output = theirs.model.transformer_module(
            multi_scale_features=their_maps.multi_scale_features,
            mask_features=their_maps.mask_features,
            output_hidden_states=True,
        )
        # As the stock forward does it, at every layer: a small share of the time.
        classes = [theirs.class_predictor(states.transpose(0, 1)) for states in output.intermediate_hidden_states]
        return output.masks_queries_logits[-1], classes[-1]

    return {
        BACKBONE: lambda: ours.backbone(pixels, content),
        OURS_PIXELS: lambda: ours.pixel_decoder(maps, content),
        THEIRS_PIXELS: lambda: theirs.model.pixel_level_module.decoder(maps),
        OURS_QUERIES: ask_ours,
        THEIRS_QUERIES: ask_theirs,
        OURS_TOTAL: lambda: ours(pixels, class_embeds=class_embeds),
        THEIRS_TOTAL: lambda: theirs(pixels),
    }


def check_parts(parts: dict[str, Callable[[], object]]) -> float:
    """Refuse to time models that do not do the same work. Returns the difference of the pixel decoders' features."""
    (our_features, _), their_features = parts[OURS_PIXELS](), parts[THEIRS_PIXELS]().mask_features
    difference = float((our_features - their_features).abs().max() / their_features.abs().max())
    ours, theirs = parts[OURS_TOTAL](), parts[THEIRS_TOTAL]()
    shapes = (ours.mask_logits[:, :, 0].shape, ours.class_logits.shape)
    if shapes != (theirs.masks_queries_logits.shape, theirs.class_queries_logits.shape) or difference > 1e-3:
        raise RuntimeError(f"the two models differ: shapes {shapes}, relative difference of features {difference:.1e}")
    return difference


def measure(parts: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every part, once per repeat, the parts in turn; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(-1, repeats):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(seconds: dict[str, list[float]]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rows per part, and the ratios: of medians, with the least and greatest ratio within one repeat."""
    rows = [
        {
            "part": name,
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
            "seconds": [round(value, 4) for value in values],
        }
        for name, values in seconds.items()
    ]
    ratios = []
    for name, above, below, goal, is_more_better in RATIOS:
        ratio = statistics.median(seconds[above]) / statistics.median(seconds[below])
        within = [first / second for first, second in zip(seconds[above], seconds[below], strict=True)]
        ratios.append(
            {
                "figure": name,
                "ratio": round(ratio, 3),
                "min": round(min(within), 3),
                "max": round(max(within), 3),
                "goal": f"{'at least' if is_more_better else 'at most'} {goal}",
                "is_reached": ratio >= goal if is_more_better else ratio <= goal,
            }
        )
    return rows, ratios


def print_tables(rows: list[dict[str, object]], ratios: list[dict[str, object]], is_tiny: bool) -> None:
    print(f"random weights: speed only{'; a tiny model: the goals do not apply' if is_tiny else ''}")
    print(f"{'seconds':34} {'median':>8} {'min':>8} {'max':>8}")
    for row in rows:
        print(f"{row['part']:34} {row['median']:8.3f} {row['min']:8.3f} {row['max']:8.3f}")
    print(f"\n{'ratio':34} {'medians':>8} {'min':>8} {'max':>8}  goal")
    for row in ratios:
        verdict = "not judged" if is_tiny else "reached" if row["is_reached"] else "MISSED"
        print(f"{row['figure']:34} {row['ratio']:8.2f} {row['min']:8.2f} {row['max']:8.2f}  {row['goal']}: {verdict}")


def processor_name() -> str:
    """The model of the processor (Linux), else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The commit of this checkout, marked when files differ from it; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="default: beside this file; with --tiny nothing is written without it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, help="side of the picture in pixels, a multiple of 32 (640; tiny: 64)")
    parser.add_argument("--compile", action="store_true", help="time our model under torch.compile, too")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that the script runs")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error(f"--repeats is {arguments.repeats}, --threads is {arguments.threads}: expected at least 1 of each")
    arguments.size = arguments.size or (64 if arguments.tiny else 640)
    if arguments.size % 32 or arguments.size < 32:
        parser.error(f"--size is {arguments.size}: expected a multiple of 32")
    if arguments.out is None and not arguments.tiny:
        arguments.out = Path(__file__).with_suffix(".json")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    # 32 groups, as Mask2Former has them whatever its width.
    config = OMGSegConfig.tiny(group_norm_groups=32) if arguments.tiny else OMGSegConfig()
    space = builtin_label_space("coco_panoptic")
    prompts = max(len(names) for names in space.prompts)
    class_embeds = nn.functional.normalize(torch.randn(len(space), prompts, config.text_dim), dim=-1)
    pixels = torch.randn(1, 3, arguments.size, arguments.size)
    ours = build_ours(config)
    theirs = build_theirs(ours, len(space))
    with torch.inference_mode():
        parts = build_parts(ours, theirs, pixels, class_embeds)
        difference = check_parts(parts)
        if arguments.compile:
            compiled = torch.compile(ours, fullgraph=True)
            parts[COMPILED] = lambda: compiled(pixels, class_embeds=class_embeds)
        rows, ratios = summarise(measure(parts, arguments.repeats))
    print_tables(rows, ratios, arguments.tiny)
    report = {
        "task": __doc__.splitlines()[0],
        "weights": "random: figures of speed, not of quality",
        "model": "tiny, to see that the script runs" if arguments.tiny else f"{config.backbone_name}, full size",
        "settings": {
            "size": [arguments.size, arguments.size],
            "queries": config.num_queries,
            "names": len(space),
            "prototypes_per_name": prompts,
            "repeats": arguments.repeats,
            "batch": 1,
            "dtype": "float32",
        },
        "machine": {"processor": processor_name(), "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "commit": commit(),
        "pixel_decoders_differ_by": difference,
        "ratios": ratios,
        "rows": rows,
    }
    if arguments.out is not None:
        temporary = arguments.out.with_name(arguments.out.name + ".part")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main()
