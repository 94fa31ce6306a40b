"""What goes into the model and what comes out: pictures, names and prompts in; sizes and Segments out."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from omg_transformers.registration import register

if TYPE_CHECKING:
    from omg_transformers.processing.image_processor import OMGSegImageProcessor
    from omg_transformers.processing.pictures import PictureNotFoundError, read_picture
    from omg_transformers.processing.processor import OMGSegProcessor

_HOMES = {
    "OMGSegImageProcessor": "image_processor",
    "OMGSegProcessor": "processor",
    "PictureNotFoundError": "pictures",
    "read_picture": "pictures",
}

__all__ = ["OMGSegImageProcessor", "OMGSegProcessor", "PictureNotFoundError", "read_picture"]


def __getattr__(name: str) -> Any:
    # Late, so that reading a picture (a data worker, `omg-seg --help`) does not import transformers.
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        if "transformers" in sys.modules:
            register()
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
