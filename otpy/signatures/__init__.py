"""Contracts and rows: what programs are given and give back. Pure."""

from __future__ import annotations

from otpy.signatures.example import Example, Prediction
from otpy.signatures.fields import FieldSpec, InputField, OutputField, allowed_values, type_text
from otpy.signatures.signature import Signature, SignatureMeta

__all__ = [
    "Example",
    "FieldSpec",
    "InputField",
    "OutputField",
    "Prediction",
    "Signature",
    "SignatureMeta",
    "allowed_values",
    "type_text",
]
