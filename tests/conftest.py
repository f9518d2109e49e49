"""Fixtures that every test package shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder with the zoo of trained models; tests that use it are skipped where there is none."""
    path = Path(os.environ.get("ONNXPRUNE_ZOO") or ROOT.parent / "shared" / "zoo")
    if not (path / "INDEX.md").is_file():
        pytest.skip(f"no zoo of trained models at {path} (set ONNXPRUNE_ZOO)")
    return path


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the small trained models that the project makes itself."""
    return ROOT / "models"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A plain `pytest` runs what CI runs: slow and fuzz tests need a `-m` expression."""
    if config.getoption("-m"):
        return
    for item in items:
        for marker in ("slow", "fuzz"):
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: run with -m"))
