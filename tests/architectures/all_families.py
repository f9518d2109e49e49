"""All families, from the modules that define them."""

from __future__ import annotations

import families_attention
import families_classic
import families_decoders
import families_detection
import families_encoders
import families_maps
import families_mobile
import families_modern
import families_recurrent
import families_residual
import families_seq2seq
import families_signals
import families_streams
import families_vision_transformers
from family import Family

FAMILIES: tuple[Family, ...] = (
    *families_classic.FAMILIES,
    *families_residual.FAMILIES,
    *families_mobile.FAMILIES,
    *families_modern.FAMILIES,
    *families_maps.FAMILIES,
    *families_detection.FAMILIES,
    *families_signals.FAMILIES,
    *families_encoders.FAMILIES,
    *families_decoders.FAMILIES,
    *families_seq2seq.FAMILIES,
    *families_attention.FAMILIES,
    *families_recurrent.FAMILIES,
    *families_streams.FAMILIES,
    *families_vision_transformers.FAMILIES,
)
