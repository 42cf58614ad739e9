"""Refuse an import that runs against the order of the package's rooms.

A room is a folder of the package, or a module that stands on its ground floor. A module
imports only from its own room and from rooms below it, and no two modules of a room
import each other in a circle.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "numbasaem"
ROOMS = (
    "aliases",
    "errors",
    "random_streams",
    "schedule",
    "presets",
    "setting_checks",
    "setting_words",
    "settings",
    "settings_file",
    "kernels",
    "threads",
    "machine",
    "geometry",
    "projection",
    "volume",
    "io",
    "micrographs",
    "autocorrelation",
    "observations",
    "assessment",
    "reconstruction",
    "picking",
    "validation",
    "simulation",
    "report",
    "cli",
    "__main__",
)
"""Rooms of the package, from the ground floor up."""
SURFACE_NAMES = frozenset({"__version__"})
"""Names that a module may import from the package itself."""


def _module(path: Path, package: Path) -> str:
    """Dotted name of a file within the package."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(tree: ast.AST, parents: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and dotted name within the package of all that a module imports from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(parents[: len(parents) + 1 - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == PACKAGE:
                yield node.lineno, ".".join(name[1:])


def _fault(module: str, target: str) -> str | None:
    """What is wrong with an import, if anything is."""
    room, wanted = module.partition(".")[0], target.partition(".")[0]
    if wanted == room or target in SURFACE_NAMES:
        return None
    if wanted not in ROOMS:
        return f"{module} imports {target or PACKAGE}, which is no room of the package"
    if ROOMS.index(wanted) > ROOMS.index(room):
        return f"{module} imports {target} from a room above its own"
    return None


def _circles(within: dict[str, set[str]]) -> Iterator[str]:
    """Modules that import each other in a circle."""
    try:
        TopologicalSorter(within).prepare()
    except CycleError as error:
        yield f"{PACKAGE}: a circle of imports, {' -> '.join(error.args[1])}"


def _problems(root: Path) -> Iterator[str]:
    package = root / PACKAGE
    files = [p for p in sorted(package.rglob("*.py")) if p != package / "__init__.py"]
    modules = {_module(path, package): path for path in files}
    within: dict[str, set[str]] = {}
    for module, path in modules.items():
        where = path.relative_to(root)
        if module.partition(".")[0] not in ROOMS:
            yield f"{where}:1: {module} belongs to no room of the package"
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for line, target in _imports(tree, where.parent.parts):
            fault = _fault(module, target)
            if fault is not None:
                yield f"{where}:{line}: {fault}"
            owner = target if target in modules else target.rpartition(".")[0]
            if owner in modules and owner != module:
                within.setdefault(module, set()).add(owner)
    yield from _circles(within)


def main(root: Path) -> int:
    """Check one checkout; print `file:line: message` for each fault.

    Parameters
    ----------
    root : pathlib.Path
        Folder that holds the package.

    Returns
    -------
    int
        0 when nothing was found, else 1.
    """
    problems = list(_problems(root))
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
