"""Data sets in memory, and the way from grey levels to continuous values and back."""

from jflow.data.images import digits, npz, pad, tfds
from jflow.data.splits import Labelled, Splits
from jflow.functional.dequantization import dequantize, quantize

__all__ = ["Labelled", "Splits", "dequantize", "digits", "npz", "pad", "quantize", "tfds"]
