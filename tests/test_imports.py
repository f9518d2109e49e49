"""The structure of the code: imports go one way, files and functions stay small, start-up stays cheap."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import onnxprune
from onnxprune import _siblings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("onnxprune", "passes", "runtime_bench")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# A module may import modules of its own unit and of the units listed for it.
_IR = {"errors", "sandbox", "ir"}
_STATS = _IR | {"channels", "stats"}
_PASSES = _STATS | {"pipeline", "passes"}
_SEARCH = _PASSES | {"runtime_bench", "search"}
MAY_IMPORT = {
    "errors": set(),
    "sandbox": {"errors"},
    "ir": _IR,
    "channels": _IR | {"channels"},
    "stats": _STATS,
    "pipeline": _STATS | {"pipeline"},
    "passes": _PASSES,
    "runtime_bench": {"errors", "sandbox", "runtime_bench"},
    "report": {"errors", "report"},
    "search": _SEARCH,
    "api": _SEARCH | {"report", "api"},
    "advice": _SEARCH | {"report", "api", "advice"},
    "cli": {"errors", "sandbox", "runtime_bench", "search", "report", "api", "advice", "cli"},
}
HEAVY = ("scipy", "onnxscript", "onnx", "onnxruntime", "onnx_graphsurgeon", "torch", "numpy", "networkx")
LAZY_ONLY = ("scipy.optimize", "onnxscript", "onnxruntime.quantization", "torch", "matplotlib", "jinja2")


def unit_of(parts: tuple[str, ...]) -> str:
    """The unit that a dotted module name belongs to: a subpackage of onnxprune, or one of the other packages."""
    if parts[0] != "onnxprune":
        return parts[0]
    name = parts[1] if len(parts) > 1 else "onnxprune"
    return UNITS.get(name, name)


# modules of onnxprune that belong to a unit of another name
UNITS = {
    "canonical": "search",
    "cores": "errors",
    "evaluation": "search",
    "pipeline_text": "pipeline",
    "progress": "errors",
    "report_html": "report",
    "report_svg": "report",
    "report_text": "report",
    "units": "errors",
    "verification": "pipeline",
}


def module_parts(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(tree: ast.Module, parts: tuple[str, ...], is_package: bool, top_level: bool) -> set[str]:
    """Dotted names that a module imports at run time: all of them, or those that run when it is imported."""
    found: set[str] = set()
    for node in _nodes(tree, top_level):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            keep = len(parts) - node.level + is_package if node.level else 0
            base = ".".join((*parts[:keep], *filter(None, [node.module])))
            found.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
    return found


def _nodes(tree: ast.AST, top_level: bool):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from _nodes(node, top_level)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_imports_go_one_way():
    wrong = []
    for path in SOURCES:
        parts = module_parts(path)
        unit = unit_of(parts)
        if unit in ("onnxprune", "_siblings", "__main__"):
            continue
        assert unit in MAY_IMPORT, f"{path.relative_to(ROOT)}: say in this test which units {unit!r} may import"
        for name in imports(parse(path), parts, path.name == "__init__.py", top_level=False):
            target = name.split(".")
            if target[0] not in PACKAGES or target == ["onnxprune"]:
                continue
            other = unit_of(tuple(target))
            if other in MAY_IMPORT and other != unit and other not in MAY_IMPORT[unit]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_rare_dependencies_are_imported_where_they_are_used():
    wrong = []
    for path in SOURCES:
        names = imports(parse(path), module_parts(path), path.name == "__init__.py", top_level=True)
        bad = {name for name in names for lazy in LAZY_ONLY if name == lazy or name.startswith(lazy + ".")}
        wrong += [f"{path.relative_to(ROOT)} imports {name} when it is imported" for name in sorted(bad)]
    assert not wrong


def test_files_are_small():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): size for path, size in lengths.items() if size > 500} == {}
    assert statistics.median(size for size in lengths.values() if size > 5) <= 150


def test_functions_are_short():
    lengths: dict[str, int] = {}
    for path in SOURCES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: size for name, size in lengths.items() if size > 80} == {}
    assert statistics.median(lengths.values()) <= 12


def test_no_broad_except_and_no_marks_of_unfinished_work():
    wrong = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(ROOT)
        wrong += [f"{place}: {word}" for word in ("TODO", "FIXME", "XXX", "HACK") if word in text]
        if place != Path("onnxprune/sandbox.py"):
            handlers = (node for node in ast.walk(parse(path)) if isinstance(node, ast.ExceptHandler))
            wrong += [f"{place}:{node.lineno}: bare except" for node in handlers if node.type is None]
    assert not wrong


def loaded_modules(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import onnxprune", "import onnxprune.errors", "import onnxprune.sandbox"])
def test_importing_the_package_is_cheap(statement):
    assert not loaded_modules(statement).intersection(HEAVY)


def test_importing_the_command_line_is_cheap():
    assert not loaded_modules("import onnxprune.cli").intersection(HEAVY)


def test_public_names_are_loaded_when_used():
    assert set(dir(onnxprune)) >= {"compress", "canonicalize", "analyze", "benchmark", "Model", "errors"}
    assert onnxprune.Model.__module__ == "onnxprune.ir.model"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = onnxprune.nonsense


def test_every_public_name_exists():
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name) is not None


def test_the_version_is_the_one_of_the_project():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == onnxprune.__version__


def test_a_foreign_package_of_our_name_is_named(tmp_path):
    _siblings.check()
    for name in ("passes", "runtime_bench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    with pytest.raises(ImportError, match="-P") as caught:
        _siblings.check(tmp_path)
    assert str(ROOT / "passes" / "__init__.py") in str(caught.value)


def test_a_shadowing_folder_is_reported_by_the_package(tmp_path):
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "__init__.py").touch()
    program = "import onnxprune; onnxprune.Model"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode and "start Python with -P" in done.stderr.splitlines()[-1]
