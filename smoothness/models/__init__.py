"""Identical architectures whose activation is the variable."""

from smoothness.models.build import (
    ARCHITECTURES,
    BuildRecord,
    activation_factory,
    architecture_options,
    build_model,
    build_record,
    build_twins,
)
from smoothness.models.classical import build_classical, list_classical
from smoothness.models.initial import weights_fingerprint

__all__ = [
    "ARCHITECTURES",
    "BuildRecord",
    "activation_factory",
    "architecture_options",
    "build_classical",
    "build_model",
    "build_record",
    "build_twins",
    "list_classical",
    "weights_fingerprint",
]
