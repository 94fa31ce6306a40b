"""Contract and discovery of plug-ins: the only module that the author of a task head has to read."""

from omg_transformers.plugins.contract import (
    API_VERSION,
    HeadSpec,
    MakesQueryInputs,
    Metric,
    QueryEncoder,
    TaskHead,
)
from omg_transformers.plugins.discovery import (
    HeadLoadError,
    PluginLoadError,
    PluginOrigin,
    available_heads,
    available_query_encoders,
    failed_heads,
    failed_query_encoders,
    head_origin,
    heads_that_read,
    load_head,
    load_query_encoder,
    query_encoder_origin,
)

__all__ = [
    "API_VERSION",
    "HeadLoadError",
    "HeadSpec",
    "MakesQueryInputs",
    "Metric",
    "PluginLoadError",
    "PluginOrigin",
    "QueryEncoder",
    "TaskHead",
    "available_heads",
    "available_query_encoders",
    "failed_heads",
    "failed_query_encoders",
    "head_origin",
    "heads_that_read",
    "load_head",
    "load_query_encoder",
    "query_encoder_origin",
]
