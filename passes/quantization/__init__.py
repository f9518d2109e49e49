"""8-bit quantization: static (QDQ) and dynamic. See docs/quantization.md."""

from passes.quantization.api import (
    choose_exclusions,
    fake_quantize_for_latency,
    is_quantized,
    quantizable,
    quantize,
)
from passes.quantization.dynamic_pass import QuantizeDynamic
from passes.quantization.host import saturates
from passes.quantization.scheme import Scheme
from passes.quantization.sensitivity import float_prefixes, ranking, sensitivity
from passes.quantization.static_pass import QuantizeStatic

__all__ = [
    "QuantizeDynamic",
    "QuantizeStatic",
    "Scheme",
    "choose_exclusions",
    "fake_quantize_for_latency",
    "float_prefixes",
    "is_quantized",
    "quantizable",
    "quantize",
    "ranking",
    "saturates",
    "sensitivity",
]
