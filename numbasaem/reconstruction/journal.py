"""Record of all runs of a reconstruction, and the lock of its folder."""

from __future__ import annotations

import fcntl
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from numbasaem.errors import expected, warn
from numbasaem.setting_checks import contrast_in_place_of_invert

from .checkpoint import newest_checkpoint, previous_of, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from .state import RunState

VALIDATION = "validation.json"
"""Name of the file, beside the checkpoint, of the verdict on the run."""
_MARK_LENGTH = 512
"""Number of bytes that tell a checkpoint from all others."""


class Journal:
    """Record of all runs, in memory and, if there is a folder, in its `run.h5`.

    A context manager: no other process can write to the folder meanwhile. Where the
    file system cannot lock it for all hosts, two may begin; then the one that finds the
    checkpoint of the other in place of its own ends with a line.

    Parameters
    ----------
    folder : Path or None
        Output folder.
    resume : bool
        Take up the run that the folder holds.
    settings : dict
        Settings that must be the same for a run to be resumed, as JSON can hold them.
        A contrast that is to be found becomes the one found when the run began.

    Raises
    ------
    InputError
        If the folder holds a run that is not to be resumed, or one of other settings.

    Warns
    -----
    RunWarning
        If the newest checkpoint is damaged, or was written by other versions.
    """

    def __init__(
        self, folder: Path | None, resume: bool, settings: dict[str, Any]
    ) -> None:
        self.path = None if folder is None else folder / "run.h5"
        self.description: dict[str, Any] = {
            "settings": settings,
            "versions": versions(),
        }
        self.runs: dict[str, RunState] = {}
        self._whole: Path | None = None
        self._begun: dict[str, Any] = {}
        self._lock: int | None = None
        self._has_moved = False
        self._mark: bytes | None = None
        if self.path is None:
            return
        held = [p.name for p in (self.path, previous_of(self.path)) if p.exists()]
        if held and not resume:
            raise expected(folder, "a folder without a run, or `resume=True`", held[0])
        if held:
            self._mark = _mark_of(self.path)
            self._whole, self._begun, self.runs = newest_checkpoint(self.path)
            self._refuse_other_settings()
            self._tell_other_versions()

    def __enter__(self) -> Self:
        """Do nothing; the folder is taken by :meth:`begin`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the folder, which states where run and inputs are now."""
        try:
            if self._has_moved and error is None:
                self.save()
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def begin(self, sources: list[dict[str, Any]], preparation: dict[str, Any]) -> None:
        """Take the folder, made if it does not exist, for a run on these inputs.

        Parameters
        ----------
        sources : list of dict
            Name, size and SHA-256 of each input.
        preparation : dict
            What was done to them, for the record: the settings decide it.

        Raises
        ------
        InputError
            If the run to resume is of other inputs, or the folder cannot be written or
            is in use by another process.
        """
        self.description["sources"] = sources
        self.description["preparation"] = preparation
        if self.path is None:
            return
        self.description["folder"] = os.path.abspath(self.path.parent)
        if self._whole is not None:
            refuse_other_sources(self._whole, self._begun["sources"], sources)
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise expected(folder, "a folder to write to", error.strerror) from error
        if not _locked(self._lock):
            raise expected(folder, "a folder for one process", "a run under way")
        self._refuse_other_process()
        if self._whole is None:
            # A verdict left here is on another run.
            try:
                (folder / VALIDATION).unlink(missing_ok=True)
            except OSError as error:
                wanted = "a folder to write to"
                raise expected(folder, wanted, error.strerror) from error
            self.save()
        elif self._whole != self.path:
            # Else the next save would put the damaged file in place of the whole one.
            self._whole.replace(self.path)
            self._mark = _mark_of(self.path)
        self._has_moved = self._whole is not None and any(
            self.description[name] != self._begun.get(name)
            for name in ("sources", "folder")
        )

    def save(self) -> None:
        """Write the file anew.

        Raises
        ------
        InputError
            If it cannot be written, or another process has written it.
        """
        if self.path is not None:
            self._refuse_other_process()
            save_checkpoint(self.path, self.description, self.runs)
            self._mark = _mark_of(self.path)
            self._has_moved = False

    def _refuse_other_process(self) -> None:
        """Refuse to replace a checkpoint that this process has neither read nor made.

        A file that is gone is made anew.
        """
        assert self.path is not None
        if _mark_of(self.path) not in (None, self._mark):
            found = f"the {self.path.name} of another, perhaps on another host"
            raise expected(self.path.parent, "a folder for one process", found)

    @property
    def contrast(self) -> str:
        """Contrast of the run: "bright", "dark", or "auto" if it is yet to be found."""
        return str(self.description["settings"]["contrast"])

    def keep_contrast(self, found: str) -> None:
        """Keep the contrast that was found, for the run to go on with.

        Parameters
        ----------
        found : str
            "bright" or "dark".
        """
        self.description["settings"]["contrast"] = found

    @property
    def n_done(self) -> int:
        """Iterations done, over all runs."""
        return sum(len(state.history) for state in self.runs.values())

    def _refuse_other_settings(self) -> None:
        before = contrast_in_place_of_invert(self._begun["settings"])
        settings = self.description["settings"]
        if settings.get("contrast") == "auto":
            self.keep_contrast(before["contrast"])
        for name, asked in settings.items():
            if asked != before.get(name):
                where = f"{self._whole}: {name}"
                raise expected(where, f"{before.get(name)}, as begun", asked)

    def _tell_other_versions(self) -> None:
        before = self._begun["versions"]
        now = self.description["versions"]
        for name in before.keys() & now.keys():
            if before[name] != now[name]:
                warn(
                    f"{self._whole}: begun with {name} {before[name]}, goes on with "
                    f"{now[name]}; the result may differ in its last digits"
                )


def refuse_other_sources(
    run: Path, begun: list[dict[str, Any]], now: list[dict[str, Any]]
) -> None:
    """Refuse inputs that are not those a run began with.

    Parameters
    ----------
    run : Path
        Checkpoint of the run, as errors name it.
    begun, now : list of dict
        Name, size and SHA-256 of each input, when the run began and now.

    Raises
    ------
    InputError
        If their number or the content of one differs, or what is left out of them.
    """
    if len(begun) != len(now):
        wanted = f"{len(begun)} micrographs, as begun"
        raise expected(run, wanted, len(now))
    for first, second in zip(begun, now, strict=True):
        wanted = f"{first['name']} as it was when the run began"
        if first["size"] != second["size"]:
            found = f"{second['size']} bytes, not {first['size']}, in {second['name']}"
            raise expected(run, wanted, found)
        if first["sha256"] != second["sha256"]:
            raise expected(run, wanted, f"other data in {second['name']}")
        if first.get("copies", {}).keys() != second.get("copies", {}).keys():
            wanted = f"the use of {second['name']} that it began with; run anew"
            raise expected(run, wanted, "another, since copies are left out")
        if first.get("ctf") != second.get("ctf"):
            wanted = f"the contrast transfer function that {second['name']} began with"
            raise expected(run, wanted, "another")


def _mark_of(path: Path) -> bytes | None:
    """First block of a checkpoint, with the fingerprint of the rest; None if gone."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MARK_LENGTH)
    except OSError:
        return None


def _locked(folder: int) -> bool:
    """Lock an open folder until it is closed, where the file system can do that.

    Many shares lock nothing, or for one host alone; :class:`Journal` looks for the
    checkpoints of others before it writes its own.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def versions() -> dict[str, str]:
    """Versions of all that the bits of a result depend on.

    Returns
    -------
    dict of str to str
        Versions of Python, of this package and of the packages that compute.
    """
    packages = ("numbasaem", "numba", "llvmlite", "numpy", "scipy")
    return {"python": platform.python_version()} | {
        name: version(name) for name in packages
    }
