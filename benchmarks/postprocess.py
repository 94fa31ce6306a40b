"""Post-processing of a 4K picture: time, and memory above the idle process, per head and against transformers.

    python benchmarks/postprocess.py            # all cases, a few minutes; writes postprocess.json beside this file

300 queries, 150 classes, logits of an 800 x 1333 input, result at 2160 x 3840. Each measurement runs in a process of
its own: idle is its memory with the logits made and everything imported and tried once on a small picture.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

NUM_QUERIES, NUM_CLASSES, NUM_THINGS = 300, 150, 100
INPUT_SIZE, CONTENT_SIZE, TARGET_SIZE = (800, 1344), (800, 1333), (2160, 3840)
NUM_CONFIDENT = {"realistic": 60, "hard": 300}
HEADS = ("semantic", "instance", "panoptic")
LIBRARIES = ("ours", "transformers")
MAX_MEMORY_MB, MIN_SPEEDUP = 300, 5


def make_logits(case: str, input_size: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits (1, Q, K + 1) and mask logits (1, Q, 1, h, w): smooth blobs of all sizes, the first ones sure."""
    generator = torch.Generator().manual_seed(seed)
    height, width = input_size[0] // 4, input_size[1] // 4
    sure = NUM_CONFIDENT[case]
    classes = torch.randn((1, NUM_QUERIES, NUM_CLASSES + 1), generator=generator)
    labels = torch.randint(NUM_CLASSES, (NUM_QUERIES,), generator=generator)
    labels[sure:] = NUM_CLASSES
    classes[0, torch.arange(NUM_QUERIES), labels] += 10
    masks = torch.empty((1, NUM_QUERIES, 1, height, width))
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for query in range(NUM_QUERIES):
        centre = torch.rand(2, generator=generator)
        # Radii from 2 % to 40 % of the height, small ones more often, every seventh a wide stretch of stuff.
        radius = height * 0.02 * 20 ** float(torch.rand((), generator=generator))
        stretch = 4.0 if query % 7 == 0 else 1.0
        distance = ((rows - centre[0] * height) / radius) ** 2 + ((columns - centre[1] * width) / radius / stretch) ** 2
        ripple = torch.nn.functional.interpolate(
            torch.randn((1, 1, 9, 15), generator=generator), size=(height, width), mode="bicubic"
        )
        masks[0, query, 0] = (6 * (1 - distance.sqrt())).clamp(min=-9) + 0.7 * ripple[0, 0]
    return classes, masks


def run_ours(head_name: str, logits, sizes) -> None:
    from omg_transformers.plugins import load_head
    from omg_transformers.structures import QueryOutput

    input_size, content_size, target_size = sizes
    output = QueryOutput(*logits, input_size=input_size, content_sizes=(content_size,))
    head = load_head(head_name)
    # The original's own settings: no threshold, so that unsure queries take part as well.
    is_thing = [label < NUM_THINGS for label in range(NUM_CLASSES)]
    head.postprocess(output, sizes=[target_size], is_thing=is_thing)


def run_transformers(head_name: str, logits, sizes) -> None:
    from transformers import Mask2FormerImageProcessor

    processor = Mask2FormerImageProcessor()
    classes, masks = logits
    output = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks[:, :, 0])
    getattr(processor, f"post_process_{head_name}_segmentation")(output, target_sizes=[sizes[2]])


def measure(library: str, head_name: str, case: str, repeats: int, threads: int) -> dict[str, object]:
    """Run in a process of its own."""
    torch.set_num_threads(threads)
    run = run_ours if library == "ours" else run_transformers
    small = ((64, 96), (64, 90), (64, 90))
    run(head_name, make_logits("realistic", small[0]), small)
    logits = make_logits(case, INPUT_SIZE)
    sizes = (INPUT_SIZE, CONTENT_SIZE, TARGET_SIZE)
    idle = reset_peak()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.no_grad():
            run(head_name, logits, sizes)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": round(statistics.median(seconds), 3),
        "seconds_all": [round(value, 3) for value in seconds],
        "peak_mb_above_idle": round((read_status("VmHWM") - idle) / 1024, 1),
    }


def reset_peak() -> int:
    """Forget the process's high-water mark (Linux); returns its memory now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_status(name: str) -> int:
    """A figure of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {name}: this benchmark needs Linux")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--transformers-repeats", type=int, default=1, help="it takes up to 10 GB and 90 s a time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=NUM_CONFIDENT, default=list(NUM_CONFIDENT))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--child", nargs=3, metavar=("LIBRARY", "HEAD", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        library, head_name, case = arguments.child
        print(json.dumps(measure(library, head_name, case, arguments.repeats, arguments.threads)))
        return
    rows = [compare(head_name, case, arguments) for case in arguments.cases for head_name in arguments.heads]
    report = {
        "task": __doc__.splitlines()[0],
        "machine": {"processor": platform.processor() or platform.machine(), "threads": arguments.threads},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": version()},
        "goals": {"peak_mb_above_idle": MAX_MEMORY_MB, "speedup": MIN_SPEEDUP},
        "rows": rows,
    }
    temporary = arguments.out.with_name(arguments.out.name + ".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(arguments.out)


def compare(head_name: str, case: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One head and case, each library in a fresh process."""
    row: dict[str, object] = {"head": head_name, "case": case}
    for library in arguments.libraries:
        repeats = arguments.repeats if library == "ours" else arguments.transformers_repeats
        command = [sys.executable, __file__, "--repeats", str(repeats), "--threads", str(arguments.threads)]
        done = subprocess.run(
            [*command, "--child", library, head_name, case], capture_output=True, text=True, check=False
        )
        row[library] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.strip()[-300:]}
    times = [row.get(library, {}).get("seconds") for library in LIBRARIES]
    if all(times):
        row["speedup"] = round(times[1] / times[0], 1)
    print(json.dumps(row), flush=True)
    return row


def version() -> str:
    import transformers

    return transformers.__version__


if __name__ == "__main__":
    main()
