"""Options are made from settings, and errors speak of options on the command line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import numbasaem
from numbasaem import cli
from numbasaem.errors import NumericalError, RunWarning, expected, warn
from numbasaem.io.mrc import write_micrograph, write_volume
from numbasaem.settings import Settings

PACKAGE = Path(numbasaem.__file__).parent
SIZE = 7

Captured = pytest.CaptureFixture[str]


def complaint(captured: Captured, *arguments: object) -> str:
    """Run a command that cannot be done; return the one line it says."""
    assert cli.main([str(argument) for argument in arguments]) == cli.UNUSABLE
    out, err = captured.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    return line.removeprefix("numbasaem: ")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings that the command line asks for; nothing is reconstructed."""
    settings: list[Settings] = []

    def note(micrographs: Any, given: Settings, **how: Any) -> None:
        settings.append(given)
        raise NumericalError("M-step", "a finite volume", "one of norm inf")

    monkeypatch.setattr("numbasaem.reconstruction.driver.reconstruct", note)
    return settings


def reconstruct(*options: object) -> int:
    return cli.main(["reconstruct", "a.mrc", "--out", "o", *map(str, options)])


def test_options__one_for_each_setting() -> None:
    command: Any = typer.main.get_command(cli.app)
    options = {p.name: p for p in command.commands["reconstruct"].params}
    assert set(Settings.model_fields) < set(options)
    for name, field in Settings.model_fields.items():
        assert options[name].opts == ["--" + name.replace("_", "-")]
        words = re.sub(
            r"`(\w+)`",
            lambda named: "--" + named[1].replace("_", "-"),
            f"{field.description}",
        )
        assert options[name].help.startswith(words)
    assert options["halves"].secondary_opts == ["--no-halves"]
    assert options["mend"].secondary_opts == ["--no-mend"]
    assert options["mend"].show_default == "with --particle-diameter"
    assert options["invert"].secondary_opts == []
    assert options["size"].show_default == "from --particle-diameter"
    assert options["rotations"].metavar == "auto|K[,K,...]"
    assert options["ell_max"].default == "auto"
    assert options["noise_variance"].default == "auto"


def test_options__left_out_are_the_defaults(asked: list[Settings]) -> None:
    assert reconstruct("--size", SIZE) == cli.UNUSABLE
    assert asked == [Settings(size=SIZE)]


def test_options__each_form(asked: list[Settings]) -> None:
    options = "--size 9 --model patch --ell-max 2,3 --iterations 4,5 --rotations 24,48"
    options += " --batch-fraction 0.5 --batching full --symmetry c4 --starts 1 --seed 3"
    options += " --noise-variance 0.5 --no-halves --invert --ctf --whiten --no-level"
    options += " --mend --no-clean --views learned --max-memory 2 --pixel-size 1.5"
    options += " --least-distance 30"
    reconstruct(*options.split())
    assert asked == [
        Settings(
            size=9,
            model="patch",
            ell_max=(2, 3),
            iterations=(4, 5),
            rotations=(24, 48),
            batch_fraction=0.5,
            batching="full",
            symmetry="C4",
            starts=1,
            seed=3,
            noise_variance=0.5,
            halves=False,
            contrast="dark",
            ctf=True,
            whiten=True,
            level=False,
            mend=True,
            clean=False,
            views="learned",
            max_memory=2.0,
            pixel_size=1.5,
            least_distance=30.0,
        )
    ]


def test_options__win_over_the_file(asked: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("size = 9\nrotations = 24\nnoise_variance = 0.5\nhalves = false\n")
    more = ("--rotations", "auto", "--noise-variance", "auto", "--halves")
    reconstruct("--settings", path)
    reconstruct("--settings", path, *more)
    from_file = Settings(size=9, rotations=24, noise_variance=0.5, halves=False)
    assert asked == [from_file, Settings(size=9)]


def test_options__win_over_the_preset(asked: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("size = 9\nstarts = 2\n")
    reconstruct("--preset", "paper", "--settings", path, "--rotations", 24)
    assert asked == [Settings.preset("paper", size=9, starts=2, rotations=24)]
    assert asked[0].model == "patch"
    assert asked[0].over_relaxation == 1


def test_invert__is_a_name_for_dark(asked: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("size = 9\ninvert = true\n")
    reconstruct("--size", 9, "--invert")
    reconstruct("--settings", path)
    reconstruct("--settings", path, "--contrast", "auto")
    reconstruct("--size", 9, "--invert", "--contrast", "dark")
    dark = Settings(size=9, contrast="dark")
    assert asked == [dark, dark, dark.changed(contrast="auto"), dark]


def test_size__may_be_left_out_beside_a_diameter(asked: list[Settings]) -> None:
    reconstruct("--particle-diameter", 120, "--resolution", 20)
    assert asked == [Settings(particle_diameter=120.0, resolution=20.0)]


def test_numerical_error__is_one_line(asked: list[Settings], capsys: Captured) -> None:
    line = complaint(capsys, "reconstruct", "a.mrc", "--out", "o", "--size", SIZE)
    assert line == "M-step: expected a finite volume, found one of norm inf"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a micrograph without pixel size, a map and a table; one works there."""
    pixels = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    write_micrograph(tmp_path / "noise.mrc", pixels, 1.0)
    write_volume(tmp_path / "map.mrc", np.random.default_rng(0).random((SIZE,) * 3), 1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.h5").write_bytes(b"a run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RECONSTRUCT = "reconstruct noise.mrc --out new --size 7 "


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "reconstruct noise.mrc --out new",
            "--size: expected a value, or --particle-diameter, found none",
        ),
        (
            "reconstruct noise.mrc --out new --particle-diameter 4",
            "--particle-diameter: expected at least 5 A, 5 pixels of 1 A, found 4 A",
        ),
        (
            "reconstruct noise.mrc --out new --particle-diameter 20 --resolution 1.5",
            "--resolution: expected at least 2 A, two pixels of 1 A, found 1.5 A",
        ),
        (
            "reconstruct noise.mrc --out new --resolution 10",
            "--resolution: expected --particle-diameter with it, found none",
        ),
        (
            RECONSTRUCT + "--particle-diameter 20 --resolution 10",
            "--resolution: expected --size or --resolution, found both",
        ),
        (
            RECONSTRUCT + "--invert --contrast bright",
            "--contrast: expected dark, as --invert says, found bright",
        ),
        (RECONSTRUCT + "--contrast grey", "--contrast: expected one of 'auto', 'br"),
        (RECONSTRUCT + "--size 3", "--size: expected at least 5, found 3"),
        (RECONSTRUCT + "--size x", "--size: expected a whole number, found 'x'"),
        (RECONSTRUCT + "--max-memory 0.001", "--max-memory: expected at least 0."),
        (RECONSTRUCT + "--symmetry Q", "--symmetry: expected C1, Cn, Dn, T, O or I"),
        (RECONSTRUCT + "--local-cluster 0", "--local-cluster: expected at least 1"),
        (RECONSTRUCT + "--iterations 5", "--iterations: expected one number for each"),
        (
            RECONSTRUCT + "--scheduler tcp://a:1 --local-cluster 2",
            "reconstruct: expected --scheduler or --local-cluster, found both",
        ),
        (
            "reconstruct noise.mrc --out run --size 7",
            "run: expected a folder without a run, or --resume, found run.h5",
        ),
        (RECONSTRUCT + "--ctf", "noise.mrc: expected its defocus in a list of mic"),
        ("pick noise.mrc --out p.star", "pick: expected either --volume or --run"),
        (
            "pick noise.mrc --out p.star --run run --invert",
            "--invert: expected --volume with it, found --run, which has its own",
        ),
        ("evaluate a.star b.star", "--tolerance: expected a number of pixels, for"),
        ("evaluate a.star b.star --tolerance 0", "--tolerance: expected a number of"),
        ("evaluate map.mrc map.mrc --tolerance 1", "--tolerance: expected a table of"),
        (
            "simulate new --volume shepp-logan --size 4 --micrographs 1 --pixels 96 "
            "--snr 1",
            "--size: expected",
        ),
    ],
)
def test_complaint__names_options(
    command: str, line: str, files: Path, capsys: Captured
) -> None:
    found = complaint(capsys, *command.split())
    assert found.startswith(line)
    assert "`" not in found
    assert not (files / "new").exists()


def test_complaint__no_form_of_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def refuse(*arguments: Any, **how: Any) -> None:
        wanted = "`mend=False`, `ctf=False`, `whiten=True`, `model=window` or `other`"
        raise expected("a.mrc", wanted, "`pixel_size`")

    monkeypatch.setattr("numbasaem.reconstruction.driver.reconstruct", refuse)
    line = complaint(capsys, "reconstruct", "a.mrc", "--out", "o", "--size", SIZE)
    assert line == (
        "a.mrc: expected --no-mend, no --ctf, --whiten, --model window or `other`, "
        "found --pixel-size"
    )


def test_warnings__are_lines_that_name_options(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def tell(*arguments: Any, **how: Any) -> None:
        for _ in range(2):
            warn("less with a larger `size`")
        raise KeyboardInterrupt

    monkeypatch.setattr("numbasaem.reconstruction.driver.reconstruct", tell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        assert reconstruct("--size", SIZE) == cli.INTERRUPTED
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == second == "numbasaem: less with a larger --size"
    assert last == "interrupted; resume with --resume"


def test_dask__missing_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['dask'] = None\n"
        "try: import numbasaem.observations.dask\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'numbasaem[distributed]'" in done.stdout


def strings(path: Path) -> list[ast.Constant]:
    """String constants of a module, docstrings included."""
    tree = ast.parse(path.read_text("utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


LIBRARY = sorted(p for p in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in p.parents)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library__names_no_options(path: Path) -> None:
    option = re.compile(r"(?:^|[\s(`])--[a-z]")
    faults = [n.lineno for n in strings(path) if option.search(str(n.value))]
    assert not faults


def test_library__tells_users_by_warnings_alone() -> None:
    for path in LIBRARY:
        text = path.read_text("utf-8")
        assert "getLogger(__name__)" not in text
        assert path.name == "errors.py" or "warnings.warn(" not in text


def test_choice__that_is_none_is_worded_as_all_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", "a.mrc", "--out", str(tmp_path), "--size", "11"]
    assert cli.main([*command, "--model", "cat"]) == 2
    line = capsys.readouterr().err.strip()
    assert line == "numbasaem: --model: expected one of 'window', 'patch', found 'cat'"
