"""Scenes that need no file: coloured shapes on textured grounds, pictures and clips, with exact labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.data.regions import encode_region
from omg_transformers.data.shapes import COLORS, GROUNDS, SHAPES, Array, draw_ground, draw_shape
from omg_transformers.data.sources import check_index, iterate
from omg_transformers.plugins import heads_that_read
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE


@cache
def procedural_label_space(num_shapes: int = len(SHAPES), num_colors: int = len(COLORS)) -> LabelSpace:
    """169 things ("red circle", "green circle" ...: every colour of every shape), then the grounds as stuff.

    Fewer of both make an easier world: the first ones are taken.
    """
    from omg_transformers.labels import LabelClass, LabelSpace

    shapes, colors = list(SHAPES)[:num_shapes], list(COLORS)[:num_colors]
    things = [(f"{color} {shape}", True, COLORS[color]) for shape in shapes for color in colors]
    grounds = [(name, False, (60 + 25 * index, 90, 200 - 25 * index)) for index, name in enumerate(GROUNDS)]
    return LabelSpace(
        name="procedural",
        classes=tuple(
            LabelClass(name=name, is_thing=is_thing, color=color, dataset_id=number)
            for number, (name, is_thing, color) in enumerate([*things, *grounds], start=1)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    """One object and how it moves. Units: pixels and frames; later objects lie in front."""

    category_id: int
    shape: str
    color: Array
    radius: float
    start: Array
    velocity: Array
    angle: float
    spin: float

    def center(self, frame: int, size: tuple[int, int]) -> tuple[float, float]:
        """(x, y); the centre is reflected at the borders."""
        limits = np.array([size[1], size[0]], np.float64)
        place = np.mod(self.start + frame * self.velocity, 2 * limits)
        x, y = np.where(place > limits, 2 * limits - place, place)
        return float(x), float(y)


class ProceduralScenes:
    """Endless scenes; number `index` depends on `seed` and `index` alone.

    size: (height, width). num_objects: fewest and most per scene. num_frames > 1: clips whose objects move, turn and
    hide each other, with constant track ids (1, 2, ...; a ground has none). Every pixel has a label: void is empty.
    num_shapes, num_colors: how many there are, at most all.
    """

    num_samples = None

    def __init__(
        self,
        size: tuple[int, int] = (192, 192),
        *,
        num_frames: int = 1,
        num_objects: tuple[int, int] = (2, 6),
        num_shapes: int = len(SHAPES),
        num_colors: int = len(COLORS),
        seed: int = 0,
    ) -> None:
        for name, count, known in (("num_shapes", num_shapes, SHAPES), ("num_colors", num_colors, COLORS)):
            if not 1 <= count <= len(known):
                raise ValueError(f"{name} is {count}: expected 1 to {len(known)}")
        if min(size) < 8:
            raise ValueError(f"size is {size}: expected (height, width), both at least 8 pixels")
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}: expected at least 1")
        if not 0 <= num_objects[0] <= num_objects[1]:
            raise ValueError(f"num_objects is {num_objects}: expected (fewest, most), not negative")
        self.size, self.num_frames, self.num_objects, self.seed = size, num_frames, num_objects, seed
        self.num_shapes, self.num_colors = num_shapes, num_colors
        self.label_space = procedural_label_space(num_shapes, num_colors)
        self.tasks = heads_that_read(("classes", "instances", "scene", "tracks"), is_video=num_frames > 1)

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Scene number `index`; its frames are (H, W, 3) uint8 arrays."""
        check_index(index, None, "procedural scenes")
        rng = np.random.default_rng([self.seed, 7001, index])
        ground, owners = self._ground(rng)
        # Numbers 1.. are the grounds in `owners`, those after them the objects, back to front.
        shapes = [self._shape(rng) for _ in range(int(rng.integers(self.num_objects[0], self.num_objects[1] + 1)))]
        frames, id_maps = [], []
        for frame in range(self.num_frames):
            picture, id_map = ground.copy(), owners["map"].copy(order="F")
            for number, shape in enumerate(shapes, start=len(owners["classes"]) + 1):
                self._paint(picture, id_map, shape, frame, number)
            noise = rng.integers(-6, 7, picture.shape[:2], dtype=np.int16)[..., None]
            frames.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
            id_maps.append(id_map)
        return Sample(
            sample_id=f"procedural-{self.seed}-{index}",
            frames=tuple(frames),
            annotation=self._annotation(id_maps, owners["classes"], shapes),
            label_space=self.label_space,
            tasks=self.tasks,
        )

    def _ground(self, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
        """One to three textured regions, divided by straight lines; their owner numbers and classes."""
        height, width = self.size
        kinds = rng.permutation(len(GROUNDS))[: int(rng.integers(1, 4))]
        owner_map = np.ones(self.size, np.uint8, order="F")
        picture = draw_ground(GROUNDS[kinds[0]], self.size, rng)
        y, x = np.ogrid[:height, :width]
        for number, kind in enumerate(kinds[1:], start=2):
            angle = rng.uniform(0, 2 * np.pi)
            place = rng.uniform(0.25, 0.75, 2) * (width, height)
            is_beyond = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle) > 0
            owner_map[is_beyond] = number
            picture[is_beyond] = draw_ground(GROUNDS[kind], self.size, rng)[is_beyond]
        first_ground = self.num_shapes * self.num_colors
        return picture, {"map": owner_map, "classes": [first_ground + int(kind) for kind in kinds]}

    def _shape(self, rng: np.random.Generator) -> _Shape:
        shape = int(rng.integers(self.num_shapes))
        color = int(rng.integers(self.num_colors))
        reach = min(self.size)
        speed = reach * rng.uniform(0.01, 0.08)
        heading = rng.uniform(0, 2 * np.pi)
        return _Shape(
            category_id=shape * self.num_colors + color,
            shape=list(SHAPES)[shape],
            color=np.array(list(COLORS.values())[color], np.float32),
            radius=reach * float(np.exp(rng.uniform(np.log(0.07), np.log(0.3)))),
            start=rng.uniform(0.05, 0.95, 2) * (self.size[1], self.size[0]),
            velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
            angle=rng.uniform(0, 2 * np.pi),
            spin=rng.uniform(-0.2, 0.2),
        )

    def _paint(self, picture: Array, id_map: Array, shape: _Shape, frame: int, number: int) -> None:
        center = shape.center(frame, self.size)
        mask = draw_shape(shape.shape, center, shape.radius, shape.angle + frame * shape.spin, self.size)
        id_map[mask] = number
        rows, columns = np.nonzero(mask)
        # Lit from the upper left.
        light = 1 + 0.12 * ((center[1] - rows) + (center[0] - columns)) / shape.radius
        picture[rows, columns] = np.clip(shape.color * light[:, None], 0, 255)

    def _annotation(self, id_maps: list[Array], grounds: list[int], shapes: list[_Shape]) -> Annotation:
        classes = [*grounds, *(shape.category_id for shape in shapes)]
        segments = []
        for number, category_id in enumerate(classes, start=1):
            masks: tuple[RLE | None, ...] = tuple(encode_region(id_map == number) for id_map in id_maps)
            if any(mask is not None for mask in masks):
                track_id = number - len(grounds) if number > len(grounds) else -1
                segments.append(Segment(category_id, masks, track_id))
        return Annotation(
            size=self.size,
            is_thing=self.label_space.is_thing,
            segments=tuple(segments),
            void=(None,) * len(id_maps),
        )
