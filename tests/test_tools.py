"""The checkers accept this checkout and refuse what they exist to refuse."""

from __future__ import annotations

from pathlib import Path

import check_kernels
import check_layers
import pytest

ROOT = Path(__file__).resolve().parents[1]

GOOD_KERNEL = '''
from numba import prange
from ._jit import FAST, STRICT, kernel, parallel_kernel

@kernel(STRICT)
def _helper(x):
    return x

@parallel_kernel(FAST)
def add_up(values, total):
    """Add values up."""
    for i in prange(values.size):
        total[i] = _helper(values[i])
'''


def checkout(root: Path, files: dict[str, str]) -> Path:
    """Write a tiny package and its slow references."""
    reference = {"tests/reference.py": "def add_up(values, total): ...\n"}
    for name, text in (reference | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def test_kernels__this_checkout_is_clean() -> None:
    assert check_kernels.main(ROOT) == 0


def test_layers__this_checkout_is_clean() -> None:
    assert check_layers.main(ROOT) == 0


def test_kernels__good_example(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"numbasaem/kernels/sums.py": GOOD_KERNEL})
    assert check_kernels.main(root) == 0


@pytest.mark.parametrize(
    ("old", "new", "line", "complaint"),
    [
        ("@parallel_kernel(FAST)", "@parallel_kernel", 9, "must state FAST or STRICT"),
        ("@kernel(STRICT)", "@kernel()", 5, "must state FAST or STRICT"),
        ("@kernel(STRICT)", "@kernel(True)", 5, "must state FAST or STRICT"),
        ("@parallel_kernel(FAST)", "@kernel(FAST)", 12, "runs serially"),
        ("@kernel(STRICT)", "@njit", 5, "njit belongs in numbasaem/kernels/_jit.py"),
        ("@kernel(STRICT)", "@numba.njit(cache=True)", 5, "njit belongs in"),
        ('"""Add values up."""', "pass", 10, "add_up has no docstring"),
        ("def add_up", "def add_down", 10, "no namesake in tests/reference.py"),
    ],
)
def test_kernels__bad_example(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    line: int,
    complaint: str,
) -> None:
    text = GOOD_KERNEL.replace(old, new)
    assert text != GOOD_KERNEL
    root = checkout(tmp_path, {"numbasaem/kernels/sums.py": text})
    assert check_kernels.main(root) == 1
    printed = capsys.readouterr().out
    assert f"numbasaem/kernels/sums.py:{line}: " in printed
    assert complaint in printed


@pytest.mark.parametrize(
    ("assignment", "clean"),
    [
        ("add_up = vector_intrinsic(_emit_add_up, n_arrays=2)", True),
        ("_correlate = vector_intrinsic(_emit_correlate, n_arrays=2)", True),
        ("_correlate = _operations.correlate", True),
        ("correlate = vector_intrinsic(_emit_correlate, n_arrays=2)", False),
        ("correlate = llvm.vector_intrinsic(_emit_correlate, n_arrays=2)", False),
        ("correlate: object = vector_intrinsic(_emit_correlate, n_arrays=2)", False),
        ("correlate = kernel(STRICT)(_correlate)", False),
    ],
)
def test_kernels__operation_made_by_assignment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], assignment: str, clean: bool
) -> None:
    files = {"numbasaem/kernels/sums.py": f"{GOOD_KERNEL}\n{assignment}\n"}
    assert check_kernels.main(checkout(tmp_path, files)) == int(not clean)
    complaint = "correlate has no namesake in tests/reference.py"
    assert (complaint in capsys.readouterr().out) is not clean


@pytest.mark.parametrize(
    "text",
    [
        "from numba import njit\n",
        "import numba\nf = numba.prange(3)\n",
        "from numba.extending import intrinsic as i\n",
    ],
)
def test_kernels__compiler_words_outside_kernels(tmp_path: Path, text: str) -> None:
    root = checkout(tmp_path, {"numbasaem/patches.py": text})
    assert check_kernels.main(root) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kernels/sums.py", "from ._jit import FAST, kernel\n"),
        ("kernels/sums.py", "from numbasaem.kernels import llvm\n"),
        ("simulation/scene.py", "from numbasaem.errors import expected\n"),
        ("simulation/scene.py", "import numpy\nfrom ..io.mrc import read_volume\n"),
        ("io/star.py", "from ..errors import expected\nfrom .mrc import f\n"),
        ("machine.py", "from numbasaem import __version__\n"),
        ("cli/progress.py", "def f():\n    from ..reconstruction import driver\n"),
    ],
)
def test_layers__good_example(tmp_path: Path, name: str, text: str) -> None:
    assert check_layers.main(checkout(tmp_path, {f"numbasaem/{name}": text})) == 0


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("kernels/sums.py", "from ..volume import basis\n", "from a room above"),
        ("errors.py", "from .kernels import llvm\n", "from a room above its own"),
        ("geometry/rotations.py", "import numbasaem.cli\n", "imports cli from a room"),
        ("projection/operator.py", "from ..volume import basis\n", "from a room above"),
        ("io/mrc.py", "from .. import simulation\n", "imports simulation from a room"),
        ("io/star.py", "from ..simulation import scene\n", "simulation.scene from"),
        ("assessment/fsc.py", "def f():\n    from ..cli import main\n", "cli.main"),
        ("picking/files.py", "import numbasaem\n", "which is no room"),
        ("picking/files.py", "from numbasaem import simulate\n", "which is no room"),
        ("novelty.py", "", "belongs to no room"),
    ],
)
def test_layers__bad_example(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    complaint: str,
) -> None:
    root = checkout(tmp_path, {f"numbasaem/{name}": text})
    assert check_layers.main(root) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"numbasaem/{name}:")
    assert complaint in printed


def test_layers__circle_within_a_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = {
        "numbasaem/io/mrc.py": "from .star import read\n",
        "numbasaem/io/star.py": "def f():\n    from . import mrc\n",
    }
    assert check_layers.main(checkout(tmp_path, modules)) == 1
    assert "a circle of imports" in capsys.readouterr().out
