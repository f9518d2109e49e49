"""All families, from the modules that define them."""

from __future__ import annotations

import families_classic
from family import Family

FAMILIES: tuple[Family, ...] = (*families_classic.FAMILIES,)
