"""Pictures to `pixel_values` and `pixel_mask`: resized with their shape kept, normalised, padded right and bottom."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from omg_transformers.processing.pictures import DEFAULT_MAX_PIXELS, read_picture

Size = tuple[int, int]


class OMGSegImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """What a call may change, beyond transformers' own keys.

    size_divisor: the padded height and width are multiples of it. max_upscale: small pictures grow at most so much.
    max_pixels: pictures above it are refused before they are decoded.
    """

    size_divisor: int | None
    max_upscale: float | None
    max_pixels: int | None


class OMGSegImageProcessor(TorchvisionBackend):
    """Turns pictures of any sizes into one batch.

    size: {"shortest_edge", "longest_edge"} (the shape is kept), or {"height", "width"}.
    Returns pixel_values (B, 3, H, W) float32, pixel_mask (B, H, W) bool, True = picture, and original_sizes (B, 2)
    int64 (height, width). Zeros are padded after normalisation, so they are not black.
    """

    valid_kwargs = OMGSegImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012 transformers' own spelling of this attribute

    do_convert_rgb = True
    do_resize = True
    size = {"shortest_edge": 640, "longest_edge": 1333}  # noqa: RUF012 as above
    resample = PILImageResampling.BILINEAR
    default_to_square = False
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    size_divisor = 32
    # A 1 x 1 or an icon of 16 x 16 holds nothing that 640 pixels could show.
    max_upscale = 4.0
    max_pixels = DEFAULT_MAX_PIXELS

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.size_divisor is None or self.size_divisor < 1:
            raise ValueError(f"size_divisor is {self.size_divisor}: expected 1 or more, 32 for a stride of 32")
        if self.max_upscale is None or self.max_upscale <= 0:
            raise ValueError(f"max_upscale is {self.max_upscale}: expected a factor above 0; 1 never enlarges")
        self._check_edges(self.size)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """One picture or a list of them, in any form that `read_picture` takes."""
        known = set(self.valid_kwargs.__annotations__) | set(ImagesKwargs.__annotations__)
        unknown = sorted(set(kwargs) - known)
        if unknown:
            raise TypeError(f"unknown argument {', '.join(map(repr, unknown))}: the processor takes {sorted(known)}")
        return super().__call__(images, *args, **kwargs)

    def resized_size(self, size: Size, edges: SizeDict | dict[str, int] | None = None) -> Size:
        """The (height, width) a picture of `size` is resized to: shape kept, each side at least 1 pixel."""
        edges = self.size if edges is None else edges
        shortest, longest, height, width = (
            edges.get(key) for key in ("shortest_edge", "longest_edge", "height", "width")
        )
        if height and width:
            return int(height), int(width)
        scales = [shortest / min(size) if shortest else math.inf, longest / max(size) if longest else math.inf]
        scale = min(*scales, self.max_upscale)
        return max(1, math.floor(size[0] * scale + 0.5)), max(1, math.floor(size[1] * scale + 0.5))

    def padded_size(self, size: Size) -> Size:
        """The (height, width) of the input for one picture of `size` alone."""
        resized = self.resized_size(size) if self.do_resize else size
        return self._round_up(resized) if self.do_pad else resized

    def _round_up(self, size: Size, divisor: int | None = None) -> Size:
        divisor = divisor or self.size_divisor
        return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor

    @staticmethod
    def _check_edges(size: Any) -> None:
        keys = {key for key in ("shortest_edge", "longest_edge", "height", "width") if size.get(key)}
        if not keys & {"shortest_edge", "longest_edge"} and keys != {"height", "width"}:
            raise ValueError(
                f"size is {dict(size)}: expected shortest_edge and/or longest_edge (shape kept), or height and width"
            )

    def _prepare_image_like_inputs(self, images: Any, **kwargs: Any) -> list[Tensor]:
        # transformers would read files without EXIF, refuse grey and 16 bit, and not say which picture was wrong.
        pictures = images if isinstance(images, (list, tuple)) else [images]
        if len(pictures) == 0:
            raise ValueError("images is empty: give at least one picture")
        tensors = []
        for index, picture in enumerate(pictures):
            try:
                pixels = read_picture(picture, max_pixels=kwargs.get("max_pixels") or DEFAULT_MAX_PIXELS)
            except (ValueError, TypeError) as error:
                if len(pictures) > 1:
                    error.add_note(f"It is images[{index}] of {len(pictures)}.")
                raise
            tensors.append(torch.from_numpy(pixels).permute(2, 0, 1).to(kwargs.get("device") or "cpu"))
        return tensors

    def _preprocess(self, images: list[Tensor], *, size: SizeDict, **kwargs: Any) -> BatchFeature:
        self._check_edges(size)
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        ready = [self._prepare_one(image, size, kwargs) for image in images]
        sizes = {tuple(image.shape[-2:]) for image in ready}
        if not kwargs["do_pad"] and len(sizes) > 1:
            raise ValueError(
                f"pictures of sizes {sorted(sizes)} cannot form a batch with do_pad=False: set do_pad=True"
            )
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        if kwargs["do_pad"]:
            height, width = self._round_up((height, width), kwargs["size_divisor"])
        pixel_values = ready[0].new_zeros((len(ready), 3, height, width))
        pixel_mask = torch.zeros((len(ready), height, width), dtype=torch.bool, device=pixel_values.device)
        for index, image in enumerate(ready):
            pixel_values[index, :, : image.shape[-2], : image.shape[-1]] = image
            pixel_mask[index, : image.shape[-2], : image.shape[-1]] = True
        return BatchFeature(
            {
                "pixel_values": pixel_values,
                "pixel_mask": pixel_mask,
                "original_sizes": torch.tensor(original_sizes, dtype=torch.int64),
            },
            tensor_type=kwargs.get("return_tensors") or "pt",
        )

    def _prepare_one(self, image: Tensor, size: SizeDict, kwargs: dict[str, Any]) -> Tensor:
        if kwargs["do_resize"]:
            height, width = self.resized_size((image.shape[-2], image.shape[-1]), size)
            if (height, width) != tuple(image.shape[-2:]):
                image = self.resize(image, SizeDict(height=height, width=width), resample=kwargs["resample"])
        image = image.float()
        if kwargs["do_rescale"]:
            image = image * kwargs["rescale_factor"]
        if kwargs["do_normalize"]:
            image = self.normalize(image, kwargs["image_mean"], kwargs["image_std"])
        return image
