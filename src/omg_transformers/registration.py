"""Makes transformers know this package: Auto classes and `pipeline("omg-segmentation")`.

Transformers reads no entry points, so a third party must register class objects, and those need torch. Registration
therefore waits until transformers itself is imported: `import omg_transformers` alone stays fast.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TASK = "omg-segmentation"
_NEEDED = {
    "omg_transformers.model": ("OMGSegConfig", "OMGSegModel"),
    "omg_transformers.processing": ("OMGSegImageProcessor", "OMGSegProcessor"),
    "omg_transformers.inference": ("OMGSegPipeline",),
}
_is_registered = False


class _AfterTransformers(MetaPathFinder):
    """Calls `register` once, right after transformers has been imported for the first time."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "transformers":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        register()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def register_with_transformers() -> None:
    """Register now if transformers is loaded, else as soon as it is."""
    if "transformers" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _AfterTransformers())


def register() -> None:
    """Register everything; does nothing while one of our own modules is still being imported (it calls again)."""
    global _is_registered
    loaded = {name: sys.modules.get(name) for name in _NEEDED}
    is_importing = any(
        module is not None and not all(hasattr(module, name) for name in _NEEDED[path])
        for path, module in loaded.items()
    )
    if _is_registered or is_importing:
        return
    _is_registered = True
    parts = {name: getattr(importlib.import_module(path), name) for path, names in _NEEDED.items() for name in names}
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    config = parts["OMGSegConfig"]
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, parts["OMGSegModel"], exist_ok=True)
    AutoImageProcessor.register(
        config, image_processor_classes={"torchvision": parts["OMGSegImageProcessor"]}, exist_ok=True
    )
    AutoProcessor.register(config, parts["OMGSegProcessor"], exist_ok=True)
    from omg_transformers import default_checkpoint

    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=parts["OMGSegPipeline"],
        pt_model=(AutoModel,),
        default={"model": (str(default_checkpoint()), None)},
        type="multimodal",
    )
    logging.getLogger("transformers.pipelines").addFilter(_is_worth_saying)
    # `save_pretrained` of a registered pipeline writes `custom_pipelines`, after which loading asks for
    # `trust_remote_code` even where this package is installed.
    del parts["OMGSegPipeline"]._registered_impl


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Not: that our task took our own default model, at no revision, which "is not recommended". It is meant to."""
    from omg_transformers import default_checkpoint

    return not record.getMessage().startswith(f"No model was supplied, defaulted to {default_checkpoint()} ")
