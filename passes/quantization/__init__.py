"""Quantization: static (QDQ) and dynamic to 8 bits, weights alone to 4, everything to float16. See
docs/quantization.md.
"""

from passes.quantization.api import (
    choose_exclusions,
    fake_quantize_for_latency,
    is_quantized,
    quantizable,
    quantize,
)
from passes.quantization.dynamic_pass import QuantizeDynamic
from passes.quantization.half_pass import ToFloat16
from passes.quantization.host import saturates
from passes.quantization.scheme import Scheme
from passes.quantization.sensitivity import float_prefixes, ranking, sensitivity
from passes.quantization.static_pass import QuantizeStatic
from passes.quantization.weight_only import reads_weights_most

__all__ = [
    "QuantizeDynamic",
    "QuantizeStatic",
    "Scheme",
    "ToFloat16",
    "choose_exclusions",
    "fake_quantize_for_latency",
    "float_prefixes",
    "is_quantized",
    "quantizable",
    "quantize",
    "ranking",
    "reads_weights_most",
    "saturates",
    "sensitivity",
]
