"""The caps of the house, executed: function length, file length, nesting, leftovers, names, layout."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("core", "transport", "sim", "app", "jepsen_like")
FOLDERS = (*SOURCE_ROOTS, "tests", "bench")
FUNCTION_LINES_MAX = 50
FILE_LINES_MAX = 600
NESTING_MAX = 3
BUCKET_NAMES = {"utils", "util", "common", "types", "manager", "helpers", "helper", "misc"}
LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the function without its docstring."""
    start, end = node.lineno, node.end_lineno or node.lineno
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return end - start + 1 - ((first.end_lineno or first.lineno) - first.lineno + 1)
    return end - start + 1


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Deepest chain of blocks inside `node`; an elif continues its if, a nested function starts anew."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deeper = depth + 1 if isinstance(child, BLOCKS) and not is_elif else depth
        deepest = max(deepest, nesting(child, deeper))
    return deepest


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files(), ids=relative)
def test_file_is_tidy(path: Path) -> None:
    text = path.read_text()
    problems: list[str] = []
    if (lines := text.count("\n")) > FILE_LINES_MAX:
        problems.append(f"{lines} lines, at most {FILE_LINES_MAX}")
    if path.name != "test_tidy.py" and (found := LEFTOVER.search(text)):
        problems.append(f"leftover {found.group()}")
    if path.stem in BUCKET_NAMES:
        problems.append("a bucket name says nothing about what is inside")
    for node in functions(ast.parse(text)):
        if (length := function_lines(node)) > FUNCTION_LINES_MAX:
            problems.append(f"{node.name} has {length} lines, at most {FUNCTION_LINES_MAX}")
        if (depth := nesting(node)) > NESTING_MAX:
            problems.append(f"{node.name} nests {depth} deep, at most {NESTING_MAX}")
    assert not problems, f"{relative(path)}: " + "; ".join(problems)


def test_caps_can_fail() -> None:
    deep = ast.parse("def f():\n for a in b:\n  if a:\n   while a:\n    with a:\n     pass\n").body[0]
    assert nesting(deep) == 4
    assert isinstance(deep, ast.FunctionDef)
    assert function_lines(deep) == 6


def test_every_source_module_opens_with_a_paragraph() -> None:
    missing = [
        relative(path)
        for root in SOURCE_ROOTS
        for path in sorted((ROOT / root).rglob("*.py"))
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not missing


def test_the_namespace_has_no_init() -> None:
    """`quorker` is a PEP 420 namespace: an `__init__.py` there would make one source root hide the others."""
    assert [
        relative(ROOT / root) for root in SOURCE_ROOTS if (ROOT / root / "quorker/__init__.py").exists()
    ] == []


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


ENTRY_POINT_NAMES = ("__init__", "__main__")


def test_no_dead_module() -> None:
    """Every source module is imported somewhere, is an entry point, or is named by the Makefile, a notebook or a test."""
    sources = [path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py")]
    imported = {name for path in python_files() for name in imported_modules(ast.parse(path.read_text()))}
    texts = (ROOT / "Makefile").read_text() + (ROOT / "pyproject.toml").read_text()
    naming = (*(ROOT / "tests").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb"))
    named = texts + "".join(path.read_text() for path in naming)
    dead: list[str] = []
    for path in sources:
        parts = path.relative_to(ROOT).with_suffix("").parts[1:]
        module = ".".join(parts)
        if path.stem not in ENTRY_POINT_NAMES and module not in imported and module not in named:
            dead.append(relative(path))
    assert not dead


CORE_ALLOWED = {
    "__future__", "abc", "base64", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "enum",
    "functools", "hashlib", "heapq", "hmac", "itertools", "math", "operator", "re", "string", "struct", "typing",
    "zlib", "zoneinfo", "msgpack", "cronsim", "quorker",
}  # fmt: skip


def test_core_imports_only_what_is_pure() -> None:
    found = {
        f"{relative(path)}: {name}"
        for path in (ROOT / "core").rglob("*.py")
        for name in imported_modules(ast.parse(path.read_text()))
        if name.split(".")[0] not in CORE_ALLOWED or name == "datetime.now"
    }
    assert not found


WORLDLY = {
    "asyncio",
    "datetime",
    "multiprocessing",
    "os",
    "secrets",
    "socket",
    "threading",
    "time",
    "trio",
    "uuid",
}
AROUND_THE_WORLD = {"campaign/determinism.py", "campaign/fuzz.py", "campaign/state.py", "mutants/matrix.py"}
"""They start runs, time and keep them; nothing in a run depends on them."""


def test_the_simulated_world_knows_no_other() -> None:
    """No clock, process or thread; and of `random` only generators that are given a seed."""
    folder = ROOT / "sim/quorker/sim"
    found: list[str] = []
    for path in sorted(folder.rglob("*.py")):
        text, name = path.read_text(), str(path.relative_to(folder))
        modules = {module.split(".")[0] for module in imported_modules(ast.parse(text))}
        if name not in AROUND_THE_WORLD:
            found += [f"{name}: {module}" for module in sorted(modules & WORLDLY)]
        found += [
            f"{name}: {call}" for call in re.findall(r"(?<![\w.])random\.(?!Random\b)\w+|\bRandom\(\)", text)
        ]
    assert found == []


UNSAFE = re.compile(r"\b(pickle|marshal|shelve|yaml\.load)\b|(?<![\w.])(eval|exec)\(|__import__\(")


def test_payloads_are_never_code() -> None:
    """S3: nothing in the sources can turn bytes into code."""
    sources = (path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))
    found = [
        f"{relative(path)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNSAFE.search(line.split("#")[0]) and not line.lstrip().startswith(('"', "'", "`"))
    ]
    assert not found
