"""The one pixel size of a run's micrographs, whatever headers and lists state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numbasaem.errors import expected, warn
from numbasaem.io.mrc import spacing_text

if TYPE_CHECKING:
    from numbasaem.io.mrc import Spacing

    from .sources import MicrographFile

_SAME_PIXEL_SIZE = 1e-3
"""Relative difference of pixel sizes that are the same: headers hold float32."""


class PixelSizes:
    """The one pixel size of all micrographs.

    Parameters
    ----------
    chosen : float or None
        Angstrom per pixel, if the user states it; it overrules files that disagree, and
        the log says so once.

    Attributes
    ----------
    given : float or None
        `chosen`.
    common : float or None
        Angstrom per pixel of all files so far.
    """

    def __init__(self, chosen: float | None) -> None:
        self.given = self.common = chosen
        self._said = False

    def of(self, file: MicrographFile, in_header: Spacing) -> float:
        """Pixel size of a file.

        Parameters
        ----------
        file : MicrographFile
            The file.
        in_header : Spacing
            Angstrom per pixel that its header states.

        Returns
        -------
        float
            Angstrom per pixel that holds.

        Raises
        ------
        InputError
            If it is unknown, if the header has unequal sides, or if it differs from
            that of the files before.

        Warns
        -----
        RunWarning
            If another holds than list or header states, for the first such file.
        """
        listed = file.listed_pixel_size
        if self.given is not None:
            place = "list" if _list_holds(file, in_header) else "header"
            overruled = listed if place == "list" else in_header
            if not same_pixel_size(self.given, overruled):
                self._say_once(file, f"{self.given:g} A as given", overruled, place)
            return self.given
        stated = stated_pixel_size(file, in_header)
        if stated is None:
            wanted = "a pixel size (CELLA) above 0 in the header, or `pixel_size`"
            raise expected(file.path, wanted, "0 or none")
        if not _list_holds(file, in_header):
            if listed is not None and not same_pixel_size(stated, listed):
                holds = f"{stated:g} A as in the header"
                self._say_once(file, holds, listed, "list, the movie's")
        elif in_header is not None and not same_pixel_size(stated, in_header):
            self._say_once(file, f"{stated:g} A as listed", in_header, "header")
        if self.common is None:
            self.common = stated
        if not same_pixel_size(stated, self.common):
            wanted = f"the pixel size of the others, {self.common:g} A, or `pixel_size`"
            raise expected(file.path, wanted, f"{stated:g} A")
        return self.common

    def _say_once(
        self, file: MicrographFile, holds: str, overruled: Spacing, place: str
    ) -> None:
        """Warn, at the first file, that another pixel size holds than one it states."""
        if not self._said:
            instead = f"in place of {_text(overruled)} in the {place}"
            warn(f"{file.path}: pixel size {holds}, {instead}")
            self._said = True


def stated_pixel_size(file: MicrographFile, in_header: Spacing) -> float | None:
    """Pixel size that the list states of a file, or else its header.

    That of the movie, which may have been binned since, gives way to the header's.

    Parameters
    ----------
    file : MicrographFile
        The file.
    in_header : Spacing
        Angstrom per pixel that its header states.

    Returns
    -------
    float or None
        Angstrom per pixel, None if neither says.

    Raises
    ------
    InputError
        If the header has unequal sides, and the list none.
    """
    if _list_holds(file, in_header):
        return file.listed_pixel_size
    if isinstance(in_header, tuple):
        wanted = "the same sampling along each axis, or `pixel_size`"
        raise expected(file.path, wanted, spacing_text(in_header))
    return in_header


def _list_holds(file: MicrographFile, in_header: Spacing) -> bool:
    """Whether the pixel size of a list holds, rather than the header's."""
    if file.listed_before_binning and isinstance(in_header, float):
        return False
    return file.listed_pixel_size is not None


def same_pixel_size(one: float, other: Spacing) -> bool:
    """Whether a pixel size is, but for rounding, the one that a file states.

    Parameters
    ----------
    one : float
        Angstrom per pixel.
    other : Spacing
        Angstrom per pixel that a file states.

    Returns
    -------
    bool
        False where the file states none, or unequal sides.
    """
    return isinstance(other, float) and abs(other / one - 1) <= _SAME_PIXEL_SIZE


def _text(stated: Spacing) -> str:
    """Pixel size that a file states, in words."""
    if stated is None:
        return "none"
    return spacing_text(stated) if isinstance(stated, tuple) else f"{stated:g} A"
