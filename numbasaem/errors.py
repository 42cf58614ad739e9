"""What this package says of input it cannot use, and of what a run survived."""

from __future__ import annotations

import warnings


class NumbasaemError(Exception):
    """What keeps the package from going on.

    Parameters
    ----------
    where : object
        The file, argument or setting at fault.
    wanted : str
        What was expected there; it names other arguments in backticks.
    found : object
        What was found instead.

    Attributes
    ----------
    where, wanted, found : str
        The same, of which the message is made.
    """

    def __init__(self, where: object, wanted: str, found: object) -> None:
        self.where, self.wanted, self.found = str(where), wanted, str(found)
        super().__init__(self.where, self.wanted, self.found)

    def __str__(self) -> str:
        """All of it in one line."""
        line = f"{self.where}: expected {self.wanted}, found {self.found}"
        return " ".join(line.split())


class InputError(NumbasaemError, ValueError):
    """An input file, array, option or setting that cannot be used.

    The message is one line that names the file or argument, what was expected
    and what was found; `where`, `wanted` and `found` are its parts.

    Examples
    --------
    >>> from numbasaem import VolumeBasis
    >>> VolumeBasis(size=3, ell_max=2)
    Traceback (most recent call last):
    numbasaem.errors.InputError: size: expected a whole number of at least 5, found 3
    """


class NumericalError(NumbasaemError, ArithmeticError):
    """Numbers that leave the range of floating point, or a fit that does not converge.

    The message is one line, made of the same parts as that of :class:`InputError`.

    Examples
    --------
    >>> raise NumericalError("M-step", "a finite volume", "one of norm inf")
    Traceback (most recent call last):
    numbasaem.errors.NumericalError: M-step: expected a finite volume, found one of ...
    """


class RunWarning(UserWarning):
    """Something went wrong in a run, and the run went on; one line says what."""


def expected(where: object, what: str, found: object) -> InputError:
    """Build an :class:`InputError` in the package's one wording.

    Parameters
    ----------
    where : object
        The file, argument or setting at fault, as the user knows it.
    what : str
        What was expected there.
    found : object
        What was found instead.

    Returns
    -------
    InputError
        The error, for the caller to raise.
    """
    return InputError(where, what, found)


def warn(message: str) -> None:
    """Tell the user of something that a run survives.

    Parameters
    ----------
    message : str
        One line.

    Warns
    -----
    RunWarning
        With that line.
    """
    warnings.warn(message, RunWarning, stacklevel=3)
