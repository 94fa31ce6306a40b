"""Picture, truth and prediction beside each other, for a person who wants to see what went wrong."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from omg_transformers.visualization.lettering import font, shortened
from omg_transformers.visualization.overlay import draw_overlay
from omg_transformers.visualization.shades import Color, segment_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE, Annotation, Segments

MAX_FRAMES = 4
# Pictures are enlarged or reduced to this many pixels on their longer side; letters are then always readable.
PANEL_SIDE, CLIP_PANEL_SIDE = 560, 420
MIN_PANEL_WIDTH = 200
# Instance results hold a hundred guesses, most of them hopeless.
MIN_SCORE, MAX_RESULTS = 0.3, 30
MATCHED_IOU = 0.3
MARGIN, GAP, LETTERS, CAPTION_LETTERS = 12, 8, 14, 17
PAPER, INK, PALE_INK = (255, 255, 255), (30, 30, 30), (110, 110, 110)
STRIPE, STRIPE_STEP = 160, 10


def draw_side_by_side(
    frame: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    annotation: Annotation,
    prediction: Segments,
    label_space: LabelSpace | None,
    *,
    caption: str = "",
) -> Image.Image:
    """The picture, the truth and the prediction with their names; up to four frames of a clip, one per row.

    frame: (H, W, 3) uint8; of a clip all T of them, of which only those shown are looked at (`shown_frames`).
    A class has one colour on both sides, and so have a predicted thing and the true one that it covers. Void and crowds
    are striped. Of results that may overlap, the best 30 with a score from 0.3 are shown. caption: written above.
    ValueError where sizes or numbers of frames differ.
    """
    frames: Any = [frame] if isinstance(frame, np.ndarray) and frame.ndim == 3 else frame
    _check(frames, annotation, prediction)
    kept, note = _kept(prediction)
    truth = _as_segments(annotation)
    side = PANEL_SIDE if annotation.num_frames == 1 else CLIP_PANEL_SIDE
    size = _fitted(annotation.size, side)
    numbers = shown_frames(annotation.num_frames)
    scenes = [(_at_size(truth, number, size), _at_size(kept, number, size)) for number in numbers]
    colors = _matching_colors(scenes, label_space)
    rows = []
    for number, scene in zip(numbers, scenes, strict=True):
        picture = _resized(frames[number], size)
        striped = _striped(picture, annotation, number)
        drawn = [
            draw_overlay(canvas, segments, label_space, colors=colors[place], scores=bool(place))
            for place, (canvas, segments) in enumerate(zip((striped, picture), scene, strict=True))
        ]
        rows.append([picture, *drawn])
    words = (
        [] if annotation.num_frames == 1 else [f"frame {number + 1} of {annotation.num_frames}" for number in numbers]
    )
    return _page(rows, ("picture", "truth", f"prediction{note}"), words, caption)


def draw_truth(
    frame: NDArray[np.uint8],
    annotation: Annotation,
    label_space: LabelSpace | None,
    *,
    number: int = 0,
    side: int = PANEL_SIDE,
    names: bool = True,
) -> NDArray[np.uint8]:
    """The annotation of frame `number` drawn on it: (h, w, 3), the longer side `side` pixels.

    frame: (H, W, 3) uint8, that frame alone. Void and crowds are striped. An object has one colour in all its frames.
    """
    size = _fitted(annotation.size, side)
    segments = _at_size(_as_segments(annotation), number, size)
    picture = _striped(_resized(frame, size), annotation, number)
    return draw_overlay(picture, segments, label_space, scores=False, names=names)


def shown_frames(num_frames: int) -> list[int]:
    """Which of T frames are shown: at most four, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int)).tolist()


def _check(frames: Sequence[NDArray[np.uint8]], annotation: Annotation, prediction: Segments) -> None:
    if len(frames) != annotation.num_frames:
        raise ValueError(
            f"frame has {len(frames)} frames, the annotation {annotation.num_frames}: give all of the clip"
        )
    for name, size in (("frame", frames[0].shape[:2]), ("prediction", prediction.size)):
        if tuple(size) != tuple(annotation.size):
            raise ValueError(f"{name} has size {tuple(size)}, the annotation {tuple(annotation.size)}: make them equal")
    if len(prediction) and prediction.num_frames != annotation.num_frames:
        raise ValueError(f"prediction has {prediction.num_frames} frames, the annotation {annotation.num_frames}")


def _kept(prediction: Segments) -> tuple[Segments, str]:
    """What is shown of a result, and how the heading says so."""
    from omg_transformers.structures import Segments

    if prediction.rles is None:
        return prediction, ""
    best_first = prediction.scores.argsort(descending=True, stable=True)
    kept = best_first[prediction.scores[best_first] >= MIN_SCORE][:MAX_RESULTS]
    shown = Segments(
        prediction.size,
        prediction.ids[kept],
        prediction.labels[kept],
        prediction.scores[kept],
        rles=tuple(prediction.rles[index] for index in kept.tolist()),
    )
    if len(shown) == len(prediction):
        return shown, ""
    return shown, f" (the best {len(shown)} of {len(prediction)})" if len(shown) else f" (no score from {MIN_SCORE})"


def _as_segments(annotation: Annotation) -> Segments:
    import torch

    from omg_transformers.structures import Segments

    count = len(annotation.segments)
    return Segments(
        annotation.size,
        torch.arange(1, count + 1),
        torch.tensor([segment.category_id for segment in annotation.segments], dtype=torch.int64),
        torch.ones(count),
        rles=tuple(segment.masks for segment in annotation.segments),
    )


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _at_size(segments: Segments, frame: int, size: tuple[int, int]) -> Segments:
    """One frame at the size of the panel, as masks that may overlap."""
    from omg_transformers.ops.masks import encode_mask
    from omg_transformers.structures import Segments

    rows, columns = _places(segments.size, size)
    rles: list[tuple[RLE | None, ...]] = []
    for index in range(len(segments)):
        mask = _mask(segments, index, frame)
        rles.append((None,) if mask is None else (encode_mask(mask[rows[:, None], columns]),))
    return Segments(size, segments.ids, segments.labels, segments.scores, rles=tuple(rles))


def _mask(segments: Segments, index: int, frame: int) -> NDArray[Any] | None:
    from omg_transformers.ops.masks import decode_rle

    if segments.rles is not None:
        rle = segments.rles[index][frame]
        return None if rle is None else decode_rle(rle).numpy()
    if segments.id_map is None:
        raise ValueError("prediction holds neither `id_map` nor `rles`: give one of them")
    return (segments.id_map[frame] == segments.ids[index].to(segments.id_map)).cpu().numpy()


def _places(old: tuple[int, int], new: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which row and which column of the old picture is nearest to each of the new one."""
    rows, columns = (
        np.minimum(((np.arange(after) + 0.5) * before / after).astype(np.int64), before - 1)
        for before, after in zip(old, new, strict=True)
    )
    return rows, columns


def _matching_colors(
    scenes: list[tuple[Segments, Segments]], space: LabelSpace | None
) -> tuple[list[Color], list[Color]]:
    """Colours of the true and of the predicted segments: equal for two that cover each other, else free ones."""
    true_labels, labels = (segments.labels.tolist() for segments in scenes[0])
    true_colors = segment_colors(true_labels, space)
    free: dict[int, list[Color]] = {
        label: segment_colors([label] * (true_labels.count(label) + labels.count(label)), space) for label in {*labels}
    }
    matches = _matches(scenes, true_labels, labels)
    for index, place in matches.items():
        if true_colors[place] in free[labels[index]]:
            free[labels[index]].remove(true_colors[place])
    colors = [
        true_colors[matches[index]] if index in matches else free[label].pop(0) for index, label in enumerate(labels)
    ]
    return true_colors, colors


def _matches(scenes: list[tuple[Segments, Segments]], true_labels: list[int], labels: list[int]) -> dict[int, int]:
    """Of each predicted segment the true one of its class (of any, if it has none) that it covers best, if any."""
    from omg_transformers.ops.masks import rle_iou

    overlaps: dict[tuple[int, int], float] = defaultdict(float)
    for scene in scenes:
        true_masks, masks = (
            {index: rle for index, (rle,) in enumerate(segments.rles or ()) if rle is not None} for segments in scene
        )
        for label in {*labels}:
            guesses = [index for index in masks if labels[index] == label]
            places = [place for place in true_masks if label in (true_labels[place], -1)]
            ious = rle_iou([masks[index] for index in guesses], [true_masks[place] for place in places])
            for (row, column), iou in np.ndenumerate(ious.numpy()):
                overlaps[guesses[row], places[column]] += float(iou) / len(scenes)
    matches: dict[int, int] = {}
    for (index, place), iou in sorted(overlaps.items(), key=lambda item: -item[1]):
        if iou >= MATCHED_IOU and index not in matches and place not in matches.values():
            matches[index] = place
    return matches


def _striped(picture: NDArray[np.uint8], annotation: Annotation, frame: int) -> NDArray[np.uint8]:
    """The picture with stripes where nothing is judged."""
    from omg_transformers.ops.masks import union_of_rles

    crowds = [segment.masks for segment in annotation.segments if segment.is_crowd]
    regions = [(masks[frame],) for masks in (annotation.void, *crowds)]
    rows, columns = _places(annotation.size, (picture.shape[0], picture.shape[1]))
    is_unjudged = union_of_rles(regions, 1, annotation.size)[0].numpy()[rows[:, None], columns]
    across = np.add.outer(np.arange(picture.shape[0]), np.arange(picture.shape[1])) % STRIPE_STEP < STRIPE_STEP // 3
    striped = picture.copy()
    striped[is_unjudged & across] = striped[is_unjudged & across] // 2 + STRIPE // 2
    return striped


def _page(
    rows: list[list[NDArray[np.uint8]]], headings: tuple[str, ...], words: list[str], caption: str
) -> Image.Image:
    """Rows of three panels under their headings. words: above each row, if any."""
    height, width = rows[0][0].shape[:2]
    cell = max(width, MIN_PANEL_WIDTH)
    line = round(LETTERS * 1.6)
    page_width = 2 * MARGIN + 3 * cell + 2 * GAP
    top = MARGIN + (round(CAPTION_LETTERS * 1.6) if caption else 0) + line
    step = height + GAP + (line if words else 0)
    image = Image.new("RGB", (page_width, top + step * len(rows) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    if caption:
        text = shortened(caption, CAPTION_LETTERS, page_width - 2 * MARGIN)
        draw.text((MARGIN, MARGIN + CAPTION_LETTERS // 2), text, INK, font(CAPTION_LETTERS), anchor="lm")
    for place, heading in enumerate(headings):
        x = MARGIN + place * (cell + GAP)
        draw.text((x, top - line // 2), shortened(heading, LETTERS, cell), PALE_INK, font(LETTERS), anchor="lm")
    for row, panels in enumerate(rows):
        y = top + row * step
        if words:
            draw.text((MARGIN, y + line // 2), words[row], PALE_INK, font(LETTERS), anchor="lm")
            y += line
        for place, panel in enumerate(panels):
            x = MARGIN + place * (cell + GAP) + (cell - width) // 2
            image.paste(Image.fromarray(panel), (x, y))
    return image
