"""Makes sure that `passes` and `runtime_bench` are ours, not other folders of that name earlier on the path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PACKAGES = ("passes", "runtime_bench")


def check(root: Path | None = None) -> None:
    """Raises ImportError naming the file that shadows one of our packages. `root` is the folder that holds them all."""
    home = Path(__file__).resolve().parents[1] if root is None else root
    for name in _PACKAGES:
        ours = home / name / "__init__.py"
        spec = importlib.util.find_spec(name)
        if not ours.is_file() or (spec is not None and spec.origin and Path(spec.origin).resolve() == ours):
            continue
        found = (
            "nothing"
            if spec is None
            else spec.origin or f"the folder {next(iter(spec.submodule_search_locations or ['?']))}"
        )
        raise ImportError(
            f"onnxprune needs its own package {name!r} ({ours}) but Python finds {found}; "
            "start Python with -P, or from another folder, so that the current folder does not come first"
        )
