"""Refuse an import that runs against the order of the package.

A module imports only from rows above its own, or from what stands to its left in the
same row. The ground floor, `errors` and `kernels`, imports nothing else of the package.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "numbasaem"
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "kernels"),
    (
        "optics",
        "threads",
        "rotations",
        "disc_basis",
        "coupling",
        "volume_basis",
        "projection",
    ),
    ("symmetry",),
    ("patches", "resampling", "phantom", "io"),
    ("simulation",),
    ("metrics", "alignment"),
    ("expectation_step", "maximization_step", "window_step"),
    (
        "schedule",
        "settings",
        "preparation",
        "observations",
        "window_data",
        "inputs",
        "memory",
        "checkpoint",
        "distributed",
    ),
    ("expectation_maximization", "plan", "reconstruction"),
    ("machine", "known_particle", "picking", "micrograph_picking", "report"),
    ("demo", "validation"),
    ("cli", "__main__"),
)
# The public surface asks for `basis.project(x, rotations)`; the import is deferred.
DEFERRED = frozenset({("volume_basis", "projection")})
ORDER = {name: place for place, name in enumerate(n for row in ROWS for n in row)}
GROUND_FLOOR = frozenset(ROWS[0])
# The surface itself may be asked for nothing but the version.
SURFACE_NAMES = frozenset({"__version__"})


def _module(path: Path, package: Path) -> str:
    """Name of the row entry that a file belongs to."""
    return path.relative_to(package).with_suffix("").parts[0]


def _targets(node: ast.stmt, parents: tuple[str, ...]) -> Iterator[str]:
    """Row entries that one import statement asks for; "" is the package itself."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = list(parents[: len(parents) + 1 - node.level]) if node.level else []
        base += node.module.split(".") if node.module else []
        # `from package import name` asks for the module called name.
        if len(base) == 1:
            names = [[*base, alias.name] for alias in node.names]
        else:
            names = [base]
    else:
        return
    for name in names:
        if name[0] == PACKAGE:
            yield name[1] if len(name) > 1 else ""


def _fault(module: str, target: str) -> str | None:
    if target == module or target in SURFACE_NAMES or (module, target) in DEFERRED:
        return None
    if target == "":
        return f"{module} imports the package's own surface"
    if target not in ORDER:
        return f"{module} imports {target}, which has no place in the order"
    if module in GROUND_FLOOR:
        return f"{module} imports {target}, but stands on the ground floor"
    if ORDER[target] > ORDER[module]:
        return f"{module} imports {target}, which stands below it"
    return None


def _problems(root: Path) -> Iterator[str]:
    package = root / PACKAGE
    for path in sorted(package.rglob("*.py")):
        if path == package / "__init__.py":
            continue
        where, module = path.relative_to(root), _module(path, package)
        if module not in ORDER:
            yield f"{where}:1: {module} has no place in the order of this script"
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.stmt):
                for target in _targets(node, where.parent.parts):
                    fault = _fault(module, target)
                    if fault is not None:
                        yield f"{where}:{node.lineno}: {fault}"


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
