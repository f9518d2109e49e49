"""All families, from the modules that define them."""

from __future__ import annotations

import families_classic
import families_detection
import families_maps
import families_mobile
import families_modern
import families_residual
import families_signals
from family import Family

FAMILIES: tuple[Family, ...] = (
    *families_classic.FAMILIES,
    *families_residual.FAMILIES,
    *families_mobile.FAMILIES,
    *families_modern.FAMILIES,
    *families_maps.FAMILIES,
    *families_detection.FAMILIES,
    *families_signals.FAMILIES,
)
