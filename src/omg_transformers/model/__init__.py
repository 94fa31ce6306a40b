"""The model: configuration, backbones, decoders, query encoders, and conversion of published weights."""

from omg_transformers.model.configuration import OMGSegConfig
from omg_transformers.model.modeling import OMGSegModel, OMGSegOutput
from omg_transformers.model.query_decoder import ImageFeatures
from omg_transformers.registration import register

__all__ = ["ImageFeatures", "OMGSegConfig", "OMGSegModel", "OMGSegOutput"]

register()
