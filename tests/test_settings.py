"""Settings: what they say of themselves, and that a wrong one is told in one line."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import numbasaem
from numbasaem.errors import InputError, NumericalError
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.settings import Settings


def test_settings__need_nothing_heavy() -> None:
    code = "import sys, numbasaem.settings; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "numba", "scipy", "typer"} & set(done.stdout.split())


def test_docstring__has_each_setting_with_its_meaning_and_default() -> None:
    words = inspect.getdoc(Settings) or ""
    lines = words.splitlines()
    for name, field in Settings.model_fields.items():
        (at,) = (n for n, line in enumerate(lines) if line.startswith(f"{name} : "))
        assert field.description
        assert lines[at + 1].strip() in field.description
    assert "size : int or None, default: from `particle_diameter`" in words
    assert "rotations : int or tuple of int or None, default: auto" in words
    assert 'model : {"window", "patch"}, default: window' in words
    assert "mend : bool or None, default: with `particle_diameter`" in words
    assert max(map(len, lines)) <= 88


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "size: expected a value, or `particle_diameter`, found none"),
        ({"size": 4}, "size: expected at least 5, found 4"),
        ({"size": 5.5}, "size: expected a whole number, found 5.5"),
        ({"size": 7, "sise": 8}, "settings: expected names of settings, found sise"),
        ({"size": 7, "batch_fraction": 2}, "batch_fraction: expected at most 1.0"),
        ({"size": 7, "noise_variance": "x"}, "noise_variance: expected a number"),
        ({"size": 7, "symmetry": "Q"}, "symmetry: expected C1, Cn, Dn, T, O or I"),
        ({"size": 7, "rotations": (9, 5, 9)}, "rotations: expected at least 8, found"),
        ({"size": 7, "iterations": (5,)}, "iterations: expected one number for each"),
        ({"size": 7, "batching": "all"}, "batching: expected 'stochastic', "),
        ({"resolution": 9}, "resolution: expected `particle_diameter` with it, found"),
        (
            {"size": 7, "particle_diameter": 90, "resolution": 9},
            "resolution: expected `size` or `resolution`, found both",
        ),
        ({"size": 7, "invert": "maybe"}, "invert: expected true or false, found 'may"),
        (
            {"size": 7, "invert": False, "contrast": "auto"},
            "contrast: expected bright, as `invert=False` says, found auto",
        ),
    ],
)
def test_settings__say_what_is_wrong(values: dict[str, object], line: str) -> None:
    for made in (Settings.model_validate, lambda v: Settings(**v)):
        with pytest.raises(InputError) as error:
            made(values)
        assert str(error.value).startswith(line)
        assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("values", "contrast"),
    [
        ({"size": 7}, "bright"),
        ({"particle_diameter": 90.0}, "auto"),
        ({"particle_diameter": 90.0, "invert": False}, "bright"),
        ({"size": 7, "invert": True}, "dark"),
        ({"size": 7, "contrast": "dark", "invert": True}, "dark"),
        ({"size": 7, "contrast": "auto"}, "auto"),
    ],
)
def test_contrast__follows_from_the_diameter_unless_it_is_given(
    values: dict[str, Any], contrast: str
) -> None:
    settings = Settings(**values)
    assert settings.contrast_or_default == contrast
    assert settings.settings_that_decide_the_result["contrast"] == contrast


def test_changed__is_checked_and_another() -> None:
    settings = Settings(size=7, ell_max=(2,), iterations=(3,))
    other = settings.changed(ell_max=(2, 3), iterations=(3, 3))
    assert other.ell_max == (2, 3)
    assert settings.ell_max == (2,)
    with pytest.raises(InputError, match="iterations: expected one number for each"):
        settings.changed(ell_max=(2, 3))
    with pytest.raises(InputError, match="names of settings, found sise"):
        settings.changed(sise=3)


def test_deciding__leaves_out_how_it_is_computed() -> None:
    few = Settings(size=7, threads=1, max_memory=2.0)
    many = Settings(size=7, threads=8)
    decisive = few.settings_that_decide_the_result
    assert decisive == many.settings_that_decide_the_result
    assert set(Settings.model_fields) - set(decisive) == {"threads", "max_memory"}


@pytest.mark.parametrize("kind", [InputError, NumericalError])
def test_errors__keep_their_parts_on_the_way_to_another_process(
    kind: type[InputError | NumericalError],
) -> None:
    error = pickle.loads(pickle.dumps(kind("a.mrc", "one\nline", 3)))
    assert type(error) is kind
    assert (error.where, error.wanted, error.found) == ("a.mrc", "one\nline", "3")
    assert str(error) == "a.mrc: expected one line, found 3"


def test_numerical_error__is_public_and_no_input_error() -> None:
    assert numbasaem.NumericalError is NumericalError
    assert issubclass(NumericalError, ArithmeticError)
    assert not issubclass(NumericalError, ValueError)


def test_rotations__follow_the_degree_unless_they_are_given() -> None:
    steps = [
        np.degrees(ViewGrid(n).step) for n in Settings(size=11).rotations_per_stage
    ]
    np.testing.assert_allclose(steps, [180 / 5, 180 / 7, 180 / 9, 180 / 11], rtol=0.01)
    assert (
        Settings(size=31, ell_max=(28,), iterations=(9,)).rotations_per_stage[0] < 2e4
    )
    patches = Settings(size=11, model="patch")
    assert patches.rotations_per_stage == (552,) * 4
    assert patches.changed(rotations=24).rotations_per_stage == (24,) * 4


def test_preset__unknown_is_refused() -> None:
    with pytest.raises(InputError, match="preset: expected paper, found 'book'"):
        Settings.preset("book", size=11)
