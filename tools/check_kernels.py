"""Refuse compiled code that hides from the project's rules.

* `njit`, `prange`, `intrinsic`, `overload` and the like are said only inside
  `numbasaem/kernels/`, and the compiling decorators themselves only in its `_jit.py`.
* A compiled function is decorated with `@kernel(...)` or `@parallel_kernel(...)` and
  states its floating-point flags: `FAST` or `STRICT`.
* `prange` stands only inside a function decorated with `@parallel_kernel(...)`:
  anywhere else the loop would silently be serial.
* A compiled function without a leading underscore has a docstring and a slow namesake
  in `tests/reference.py`. An operation made by assignment, such as
  `correlate = vector_intrinsic(...)`, has such a namesake too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

COMPILERS = frozenset(
    {"cfunc", "generated_jit", "guvectorize", "jit", "njit", "stencil", "vectorize"}
)
KERNEL_WORDS = COMPILERS | {"intrinsic", "overload", "prange"}
DECORATORS = frozenset({"kernel", "parallel_kernel"})
MAKERS = DECORATORS | {"intrinsic", "vector_intrinsic"}
FLAGS = frozenset({"FAST", "STRICT"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _last_name(node: ast.AST) -> str | None:
    """Last identifier of `name`, `module.name` or a call of either."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier that is used or imported, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, alias.name.rpartition(".")[2]


def _decorators(function: Function) -> set[str | None]:
    return {_last_name(decorator) for decorator in function.decorator_list}


def _forbidden_words(
    tree: ast.AST, words: frozenset[str], place: str
) -> Iterator[tuple[int, str]]:
    for line, word in _words(tree):
        if word in words:
            yield line, f"{word} belongs in {place}"


def _unstated_flags(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find uses of the decorators that do not state FAST or STRICT."""
    stated = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node) in DECORATORS:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if len(arguments) == 1 and _last_name(arguments[0]) in FLAGS:
                stated.add(id(node.func))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name | ast.Attribute)
            and _last_name(node) in DECORATORS
            and id(node) not in stated
        ):
            yield node.lineno, f"{_last_name(node)} must state FAST or STRICT"


def _serial_pranges(node: ast.AST, parallel: bool = False) -> Iterator[tuple[int, str]]:
    """Find `prange` outside functions decorated with parallel_kernel."""
    if isinstance(node, Function):
        parallel = "parallel_kernel" in _decorators(node)
    elif (
        isinstance(node, ast.Name | ast.Attribute)
        and _last_name(node) == "prange"
        and not parallel
    ):
        yield node.lineno, "prange outside a parallel_kernel runs serially"
    for child in ast.iter_child_nodes(node):
        yield from _serial_pranges(child, parallel)


def _undocumented(tree: ast.AST, references: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, Function) or node.name.startswith("_"):
            continue
        if not _decorators(node) & {*DECORATORS, "intrinsic"}:
            continue
        if ast.get_docstring(node) is None:
            yield node.lineno, f"{node.name} has no docstring"
        if node.name not in references:
            yield node.lineno, f"{node.name} has no namesake in tests/reference.py"


def _made(value: ast.AST | None) -> bool:
    """Whether a value is what a maker of compiled functions returns."""
    while isinstance(value, ast.Call):
        if _last_name(value) in MAKERS:
            return True
        value = value.func
    return False


def _assigned(tree: ast.Module, references: set[str]) -> Iterator[tuple[int, str]]:
    """Find operations made by assignment that have no slow namesake."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not _made(node.value):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for name in map(_last_name, targets):
            if name and not name.startswith("_") and name not in references:
                yield node.lineno, f"{name} has no namesake in tests/reference.py"


def _problems(root: Path) -> Iterator[str]:
    package = root / "numbasaem"
    reference = ast.parse((root / "tests" / "reference.py").read_text("utf-8"))
    references = {n.name for n in reference.body if isinstance(n, Function)}
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        faults: list[tuple[int, str]] = []
        if package / "kernels" not in path.parents:
            faults += _forbidden_words(tree, KERNEL_WORDS, "numbasaem/kernels/")
        elif path.name != "_jit.py":
            faults += _forbidden_words(tree, COMPILERS, "numbasaem/kernels/_jit.py")
            faults += _unstated_flags(tree)
            faults += _serial_pranges(tree)
            faults += _undocumented(tree, references)
            faults += _assigned(tree, references)
        for line, message in sorted(faults):
            yield f"{path.relative_to(root)}:{line}: {message}"


def main(root: Path) -> int:
    """Check one checkout; print `file:line: message` for each fault.

    Parameters
    ----------
    root : pathlib.Path
        Folder that holds `numbasaem/` and `tests/`.

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
