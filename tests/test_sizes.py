"""Sides of patches that follow from the molecule's diameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from numbasaem.errors import InputError
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.preparation import preparation_of
from numbasaem.micrographs.reading import list_inputs, with_size
from numbasaem.micrographs.sizes import molecule_pixels, size_for
from numbasaem.settings import Settings
from tests.helpers import noise


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "resolution", "size"),
    [
        (120.0, 1.5, None, 13),
        (120.0, 1.5, 60.0, 11),  # 4 pixels would do
        (120.0, 1.5, 120 / 6.5, 15),  # 13 pixels, neither more nor fewer
        (120.0, 1.5, 120 / 6.6, 17),
        (120.0, 1.5, 3.04, 81),  # 79 pixels
        (16.5, 1.5, None, 13),  # 11 pixels
        (16.4, 1.5, None, 11),
        (7.5, 1.5, None, 7),  # 5 pixels
        (7.5, 1.5, 3.0, 7),
    ],
)
def test_size_for__as_fine_as_asked_and_no_finer_than_the_micrographs(
    diameter: float, pixel_size: float, resolution: float | None, size: int
) -> None:
    assert size_for(diameter, pixel_size, resolution) == size
    prepared = diameter / molecule_pixels(size)
    assert prepared >= pixel_size * (1 - 1e-6)
    assert resolution is None or 2 * prepared <= resolution * (1 + 1e-6)


def test_size_for__ends_with_the_pixels_of_the_micrographs() -> None:
    assert size_for(120.0, 1.5, 3.0) == 81  # of 80 pixels an odd number, 79, is used


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "resolution", "line"),
    [
        (
            7.49,
            1.5,
            None,
            "particle_diameter: expected at least 7.5 A, 5 pixels of",
        ),
        (
            90.0,
            1.237,
            2.47,
            "resolution: expected at least 2.48 A, two pixels of 1.2",
        ),
    ],
)
def test_size_for__refuses_what_the_pixels_do_not_hold(
    diameter: float, pixel_size: float, resolution: float | None, line: str
) -> None:
    with pytest.raises(InputError) as error:
        size_for(diameter, pixel_size, resolution)
    assert str(error.value).startswith(line)


def test_with_size__takes_the_pixel_size_of_the_micrographs(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_micrograph(path, noise(40, 40), 2.0)
    inputs = list_inputs([path])
    asked = Settings(particle_diameter=22.0, resolution=4.0)
    sized = with_size(asked, inputs)
    assert sized == Settings(particle_diameter=22.0, size=13)
    assert preparation_of(sized).pixel_size == pytest.approx(2.0)
    assert with_size(asked.changed(pixel_size=1.0), inputs).size == 13
    given = Settings(size=9, particle_diameter=22.0)
    assert with_size(given, inputs) is given


def test_with_size__needs_a_pixel_size() -> None:
    inputs = list_inputs([noise(40, 40)])
    with pytest.raises(InputError, match=r"^micrographs\[0\]: expected a pixel size"):
        with_size(Settings(particle_diameter=22.0), inputs)
