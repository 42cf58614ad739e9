"""What this package says of input it cannot use, and of what a run survived."""

from __future__ import annotations


class InputError(ValueError):
    """An input file, array, option or setting that cannot be used.

    The message is one line that names the file or argument, what was expected
    and what was found.

    Examples
    --------
    >>> from numbasaem import VolumeBasis
    >>> VolumeBasis(size=3, ell_max=2)
    Traceback (most recent call last):
    numbasaem.errors.InputError: size: expected a whole number of at least 5, found 3
    """


class RunWarning(UserWarning):
    """Something went wrong in a run, and the run went on; one line says what."""


def expected(where: object, what: str, found: object) -> InputError:
    """Build an :class:`InputError` in the package's one wording.

    Parameters
    ----------
    where : object
        The file, argument or option at fault, as the user knows it.
    what : str
        What was expected there.
    found : object
        What was found instead.

    Returns
    -------
    InputError
        The error, for the caller to raise.
    """
    line = f"{where}: expected {what}, found {found}"
    return InputError(" ".join(line.split()))
