"""8-bit quantization: static (QDQ) and dynamic. See docs/quantization.md."""

from passes.quantization.api import fake_quantize_for_latency, quantizable, quantize
from passes.quantization.scheme import Scheme

__all__ = ["Scheme", "fake_quantize_for_latency", "quantizable", "quantize"]
