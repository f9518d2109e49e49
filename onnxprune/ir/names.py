"""Names for new tensors and nodes."""

from __future__ import annotations

from collections.abc import Container


def free_name(stem: str, *taken: Container[str]) -> str:
    """The stem where none of `taken` holds it, else the first free one of `stem_1`, `stem_2`, ... Takes nothing."""
    name, number = stem, 0
    while any(name in names for names in taken):
        number += 1
        name = f"{stem}_{number}"
    return name
