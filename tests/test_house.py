"""Rules that tests and pages keep: no module leans on another, no link is dead."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "tests").glob("test_*.py"))
PAGES = [
    path
    for path in (ROOT / "README.md", *ROOT.glob("*/*.md"))
    if not path.parent.name.startswith(".") or path.parent.name == ".github"
]
GENERATORS = {"default_rng", "RandomState", "Generator", "Random"}


def imported_test_modules(tree: ast.Module) -> Iterator[str]:
    """Names of the test modules that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if "test_" in alias.name)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if source.split(".")[-1].startswith("test_"):
                yield source
            elif node.level > 0 or source == "tests":
                names = (alias.name for alias in node.names)
                yield from (name for name in names if name.startswith("test_"))


def shared_generators(tree: ast.Module) -> Iterator[str]:
    """Statements of a module that make a generator for all of its tests."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            call = node.value
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func).split(".")[-1]
                if name in GENERATORS:
                    yield ast.unparse(node)


def helpers(tree: ast.Module) -> Iterator[str]:
    """Functions of a module that are neither tests nor fixtures, as text."""
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef)
            and not node.decorator_list
            and not node.name.startswith("test_")
        ):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module__stands_by_itself(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert list(imported_test_modules(tree)) == []
    assert list(shared_generators(tree)) == []


def test_module__no_helper_stands_twice() -> None:
    times = Counter(
        helper
        for path in MODULES
        for helper in helpers(ast.parse(path.read_text("utf-8")))
    )
    assert [helper for helper, count in times.items() if count > 1] == []


@pytest.mark.parametrize(
    "text",
    [
        "from tests.test_io import one_line",
        "from tests import reference, test_io",
        "from .test_io import one_line",
        "from . import test_io",
        "def f():\n    import tests.test_io as other",
    ],
)
def test_imported_test_modules__are_seen(text: str) -> None:
    assert len(list(imported_test_modules(ast.parse(text)))) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("RNG = np.random.default_rng(3)", 1),
        ("RNG: np.random.Generator = default_rng()", 1),
        ("IMAGE = np.random.default_rng(3).standard_normal(5)", 0),
        ("def f():\n    generator = np.random.default_rng(3)", 0),
    ],
)
def test_shared_generators__are_seen(text: str, count: int) -> None:
    assert len(list(shared_generators(ast.parse(text)))) == count


WALL_CLOCKS = {"time", "time_ns", "now", "utcnow", "today"}
SOURCES = sorted((ROOT / "numbasaem").rglob("*.py"))


def wall_clock_calls(tree: ast.Module) -> Iterator[str]:
    """Calls that ask for the time of day, which may jump in either direction."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).split(".")[-1]
            if owner in {"time", "datetime", "date"} and node.func.attr in WALL_CLOCKS:
                yield ast.unparse(node)


def test_package__measures_time_by_clocks_that_never_jump() -> None:
    for path in SOURCES:
        assert list(wall_clock_calls(ast.parse(path.read_text("utf-8")))) == [], path


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("time.time()", 1),
        ("datetime.datetime.now()", 1),
        ("time.monotonic()", 0),
        ("time.perf_counter()", 0),
    ],
)
def test_wall_clock_calls__are_seen(text: str, count: int) -> None:
    assert len(list(wall_clock_calls(ast.parse(text)))) == count


def anchors(page: str) -> set[str]:
    """Where a link may point to within a page: its headings, as GitHub spells them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_page__links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_page__names_scripts_that_exist(page: Path) -> None:
    for script in re.findall(r"tools/\w+\.py", page.read_text("utf-8")):
        assert (ROOT / script).exists()


def test_readme__is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200
