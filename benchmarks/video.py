"""What following a video costs and how well it does it, with the model inside the package.

    python benchmarks/video.py [--data ../shared/data] [--frames 2000]    # 20 minutes; writes video.json
    python benchmarks/video.py --only objects                             # or other parts

objects: J&F of given objects on DAVIS (its recipe: without the first and the last frame), started from the true mask of
the first frame, its box, or a click into its middle; beside the original's proposal matching and the first mask copied.
tracks: on youtubevis, objects followed from their first annotated mask, beside that mask copied: IoU in each later
annotated frame (1 where an object is gone and nothing is said of it), mean over frames, then over tracks; and the best
`video_instance` track for each true one whatever its class, by the IoU of whole tracks.
panoptic: VPQ and STQ on VIPSeg_from_camvid, asked for its 9 classes.
speed: windows of several frames beside single pictures, 20 followed objects beside 1.
stream: frames per second, peak memory of the second half beside the first half without its first tenth.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from prompt_baselines import box_of, point_of
from pycocotools import mask as coco_mask

from omg_transformers import OMGSegModel, OMGSegProcessor, default_checkpoint
from omg_transformers.formats.atomic_file import write_bytes
from omg_transformers.formats.vipseg import VipsegResults
from omg_transformers.inference.tracking import match_masks
from omg_transformers.inference.video_objects import ObjectSession
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.metrics.video_average_precision import track_ious
from omg_transformers.metrics.video_object import VideoObjectQuality
from omg_transformers.metrics.vipseg_files import FIRST_THING, THING_STEP, score_vipseg_files
from omg_transformers.ops.masks import decode_rle

PARTS = ("objects", "tracks", "panoptic", "speed", "stream")
STARTS = ("mask", "box", "click")
CLIPS = ("dogs-jump", "car-shadow")
NUM_PROPOSALS = 25
INSTANCE_OPTIONS = {"as it comes": {}, "everything": {"threshold": 0.0, "max_per_image": 100}}
PANOPTIC_OPTIONS = {"online": {}, "offline": {"mode": "offline"}, "online, windows of 3 frames": {"window": 3}}
SIZE = (270, 480)


def read_clip(root: Path, name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames, and id maps (T, H, W)."""
    frames = [np.array(Image.open(file).convert("RGB")) for file in sorted((root / "JPEGImages/480p" / name).iterdir())]
    maps = [np.array(Image.open(file)) for file in sorted((root / "Annotations/480p" / name).iterdir())]
    return frames, np.stack(maps)


def follow(model, processor, frames, truth, start: str) -> np.ndarray:
    """Objects whose start the model cannot see are not followed."""
    session = ObjectSession(model, processor)
    for number in range(1, int(truth[0].max()) + 1):
        prompt = prompt_of(start, torch.from_numpy(truth[0] == number))
        if start == "mask" or is_visible(model, processor, frames[0], prompt):
            session.add_object(**prompt, object_id=number)
    if not session.object_ids:
        return np.zeros_like(truth)
    return maps_of(session.stream(frames), truth.shape[1:])


def prompt_of(start: str, mask: torch.Tensor) -> dict[str, object]:
    if start == "click":
        return {"points": [point_of("deepest point", mask, np.random.default_rng(0)).tolist()]}
    return {"box": box_of(mask).tolist()} if start == "box" else {"mask": mask.numpy()}


def is_visible(model, processor, frame, prompt: dict[str, object]) -> bool:
    session = ObjectSession(model, processor)
    session.add_object(**prompt)
    try:
        list(session.stream([frame]))
    except ValueError as error:
        print(error, flush=True)
        return False
    return True


def maps_of(results, size) -> np.ndarray:
    maps = []
    for result in results:
        drawn = np.zeros(size, np.uint8)
        for place, number in enumerate(result.segments.ids.tolist()):
            drawn[result.segments.mask(place)[0].numpy()] = number
        maps.append(drawn)
    return np.stack(maps)


def match_proposals(model, processor, frames, truth) -> np.ndarray:
    """The original: the best proposals of the first frame that overlap the first masks, kept by their queries."""
    session = VideoSession(
        model, processor, "video_instance", threshold=0.0, max_per_image=NUM_PROPOSALS * 4, mask_nms_threshold=0.95
    )
    count = int(truth[0].max())
    maps, owners = [], {}
    for index, result in enumerate(session.stream(frames)):
        drawn = np.zeros(truth.shape[1:], np.uint8)
        if index == 0:
            proposals = torch.stack([result.segments.mask(place)[0] for place in range(len(result.segments))])
            masks = torch.stack([torch.from_numpy(truth[0] == number) for number in range(1, count + 1)])
            chosen = match_masks(proposals, masks).tolist()
            owners = {int(result.segments.ids[place]): number for number, place in enumerate(chosen, 1) if place >= 0}
        for place, identity in enumerate(result.segments.ids.tolist()):
            if identity in owners:
                drawn[result.segments.mask(place)[0].numpy()] = owners[identity]
        maps.append(drawn)
    return np.stack(maps)


def measure_objects(model, processor, data: Path) -> dict[str, dict[str, float]]:
    ways = {
        **{
            f"followed from a {start}": lambda frames, truth, start=start: follow(
                model, processor, frames, truth, start
            )
            for start in STARTS
        },
        "first mask copied": lambda frames, truth: np.repeat(truth[:1], len(frames), axis=0),
        "proposals matched (original)": partial(match_proposals, model, processor),
    }
    figures: dict[str, dict[str, float]] = {}
    for way, answer in ways.items():
        metric = VideoObjectQuality()
        for name in CLIPS:
            frames, truth = read_clip(data / "DAVIS", name)
            one = VideoObjectQuality()
            prediction = answer(frames, truth)
            for judge in (metric, one):
                judge.update_maps(prediction, truth, name=name)
            figures.setdefault(way, {})[name] = round(one.compute()["j_and_f"], 3)
        figures[way].update({key: round(value, 3) for key, value in metric.compute().items()})
        print(way, figures[way], flush=True)
    return figures


def measure_tracks(model, processor, data: Path) -> dict[str, float]:
    """Percent."""
    folder = data / "youtubevis/train"
    content = json.loads((folder / "instances.json").read_text())
    scores: dict[str, list[float]] = {}
    num_found: dict[str, list[int]] = {}
    for video in content["videos"]:
        size = (video["height"], video["width"])
        frames = [np.array(Image.open(folder / "JPEGImages" / name).convert("RGB")) for name in video["file_names"]]
        tracks = [entry["segmentations"] for entry in content["annotations"] if entry["video_id"] == video["id"]]
        truths = [[rle and coco_mask.frPyObjects(rle, *size) for rle in track] for track in tracks]
        for truth, rles in zip(truths, follow_tracks(model, processor, frames, truths), strict=True):
            first = first_shown(truth)
            for way, told in (("followed", rles), ("first mask copied", [truth[first]] * len(truth))):
                ious = [frame_iou(told[at], truth[at]) for at in range(first + 1, len(truth))]
                scores.setdefault(way, []).append(float(np.mean(ious)))
        for way, options in INSTANCE_OPTIONS.items():
            found = instance_tracks(model, processor, frames, options)
            best = track_ious(found, truths).max(0) if found else np.zeros(len(truths))
            scores.setdefault(f"best video_instance track, {way}", []).extend(best.tolist())
            num_found.setdefault(f"video_instance tracks per video, {way}", []).append(len(found))
        last = {way: [round(value, 2) for value in values[-len(truths) :]] for way, values in scores.items()}
        print(video["file_names"][0], last, flush=True)
    figures = {way: round(100 * float(np.mean(values)), 1) for way, values in scores.items()}
    figures |= {way: round(float(np.mean(values)), 1) for way, values in num_found.items()}
    print(figures, flush=True)
    return {"videos": len(content["videos"]), "tracks": len(scores["followed"]), **figures}


def first_shown(rles) -> int:
    return next(at for at, rle in enumerate(rles) if rle)


def frame_iou(told, truth) -> float:
    if not told or not truth:
        return float(not told and not truth)
    return float(coco_mask.iou([told], [truth], [0])[0, 0])


def follow_tracks(model, processor, frames, truths) -> list[list]:
    session = ObjectSession(model, processor)
    for number, truth in enumerate(truths, 1):
        first = first_shown(truth)
        session.add_object(mask=decode_rle(truth[first]), object_id=number, frame=first)
    results = list(session.stream(frames))
    return [[result.segments.rles[number][0] for result in results] for number in range(len(truths))]


def instance_tracks(model, processor, frames, options: dict[str, object]) -> list[list]:
    session = VideoSession(model, processor, "video_instance", **options)
    tracks: dict[int, list] = {}
    for result in session.stream(frames):
        for identity, rles in zip(result.segments.ids.tolist(), result.segments.rles, strict=True):
            tracks.setdefault(identity, [None] * len(frames))[result.index] = rles[0]
    return list(tracks.values())


def measure_panoptic(model, processor, data: Path) -> dict[str, dict[str, float]]:
    """Percent."""
    root = data / "VIPSeg_from_camvid"
    video = (root / "val.txt").read_text().split()[0]
    pictures = sorted((root / "imgs" / video).iterdir())
    space = classes_of(root / "panomasks" / video)
    figures: dict[str, dict[str, float]] = {"classes": list(space.names)}
    for way, options in PANOPTIC_OPTIONS.items():
        session = VideoSession(model, processor, "video_panoptic", labels=space, **options)
        with tempfile.TemporaryDirectory() as folder:
            results = VipsegResults(Path(folder), video, space)
            for picture, result in zip(pictures, session.stream(pictures), strict=True):
                results.add(picture.stem, result.segments)
            score = score_vipseg_files(root, results.close()).compute()
        names = ("vpq", "vpq_things", "vpq_stuff", "stq", "aq", "sq")
        figures[way] = {name: round(100 * float(score[name]), 1) for name in names}
        print(way, figures[way], flush=True)
    return figures


def classes_of(folder: Path) -> LabelSpace:
    """The VIPSeg classes that occur in a folder of panomasks."""
    values = {int(value) for file in folder.iterdir() for value in np.unique(np.array(Image.open(file)))} - {0}
    known = {(value if value < FIRST_THING else value // THING_STEP) - 1 for value in values}
    return LabelSpace(folder.name, tuple(c for c in builtin_label_space("vipseg").classes if c.dataset_id in known))


def procedural_frames(count: int):
    """Coloured shapes that drift over a wall."""
    random = np.random.default_rng(0)
    wall = np.kron(random.integers(60, 120, (SIZE[0] // 10, SIZE[1] // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    colours = random.integers(0, 256, (20, 3))
    places, steps = random.uniform(0, 1, (20, 2)), random.normal(0, 0.004, (20, 2))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for index in range(count):
        frame = wall.copy()
        for colour, place, step in zip(colours, places, steps, strict=True):
            y, x = (place + index * step) % 1 * SIZE
            frame[(rows - y) ** 2 + (columns - x) ** 2 < 18**2] = colour
        yield frame


def peak_bytes() -> int:
    """Most memory this process held since the last `forget_peak` (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure_stream(model, processor, count: int) -> dict[str, float]:
    """Peak memory of the second half beside the first half without its first tenth."""
    session = VideoSession(model, processor)
    early, state, start = 0, 0, time.perf_counter()
    for result in session.stream(procedural_frames(count)):
        if result.index == count // 2:
            early = peak_bytes()
        if result.index in (count // 20, count // 2):
            forget_peak()
        if result.index % 50 == 49:
            state = max(state, session.state.nbytes)
            print(f"frame {result.index + 1}: {peak_bytes() / 1e6:.1f} MB, state {state} bytes", flush=True)
    seconds, late = time.perf_counter() - start, peak_bytes()
    figures = {
        "frames": count,
        "frames per second": round(count / seconds, 2),
        "peak MB, first half": round(early / 1e6, 1),
        "peak MB, second half": round(late / 1e6, 1),
        "growth %": round(100 * (late / early - 1), 2),
        "largest state bytes": state,
    }
    print(figures, flush=True)
    return figures


def measure_speed(model, processor, repeats: int) -> dict[str, float]:
    """CPU seconds of all threads: what else this machine does counts little."""
    frames = list(procedural_frames(12))
    sessions = {window: VideoSession(model, processor, window=window) for window in (1, 3, 6)}
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):  # in turns: this machine's speed changes by the minute
        for window, session in sessions.items():
            start = time.process_time()
            with torch.no_grad():
                for first in range(0, len(frames), window):
                    session._run(frames[first : first + window])
            seconds.setdefault(f"model, CPU s per frame, window {window}", []).append(time.process_time() - start)
        for count in (1, 20):
            session = ObjectSession(model, processor)
            for number in range(count):
                mask = np.zeros(SIZE, bool)
                top, left = 50 * (number // 5), 90 * (number % 5)
                mask[top : top + 40, left : left + 40] = True
                session.add_object(mask=mask)
            start = time.process_time()
            list(session.stream(frames))
            seconds.setdefault(f"followed objects: {count}, CPU s per frame", []).append(time.process_time() - start)
    figures = {key: round(float(np.median(values)) / len(frames), 4) for key, values in seconds.items()}
    single, clip = (figures[f"model, CPU s per frame, window {window}"] for window in (1, 6))
    figures["window 6 / window 1"] = round(clip / single, 2)
    one, many = (figures[f"followed objects: {count}, CPU s per frame"] for count in (1, 20))
    figures["20 objects / 1 object"] = round(many / one, 2)
    print(figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=beside, help="folder of data sets (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; others stay")
    parser.add_argument("--frames", type=int, default=2000, help="of the stream")
    parser.add_argument("--repeats", type=int, default=3, help="of the timed steps")
    arguments = parser.parse_args()
    model = OMGSegModel.from_pretrained(default_checkpoint()).eval()
    processor = OMGSegProcessor.from_pretrained(default_checkpoint())
    target = Path(__file__).with_suffix(".json")
    parts = {
        "objects": lambda: measure_objects(model, processor, arguments.data),
        "tracks": lambda: measure_tracks(model, processor, arguments.data),
        "panoptic": lambda: measure_panoptic(model, processor, arguments.data),
        "speed": lambda: measure_speed(model, processor, arguments.repeats),
        "stream": lambda: measure_stream(model, processor, arguments.frames),
    }
    for name in arguments.only:
        found = parts[name]()
        figures = json.loads(target.read_text()) if target.is_file() else {}  # late: another part may have ended
        figures[name] = found
        write_bytes(target, (json.dumps(figures, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
