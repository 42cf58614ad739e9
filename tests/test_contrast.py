"""Dark and bright particles are told apart by the data, and the finding is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.errors import NumericalError
from numbasaem.io.mrc import write_micrograph
from numbasaem.reconstruction import contrast as finding
from numbasaem.reconstruction.checkpoint import load_checkpoint, save_checkpoint
from numbasaem.reconstruction.contrast import Contrast
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.iterate import iterations
from numbasaem.reconstruction.journal import Journal
from numbasaem.settings import Settings
from numbasaem.settings_file import read_settings
from numbasaem.simulation.scene import simulate
from numbasaem.volume.phantom import folded_chain

SIZE = 7
AUTO = Settings(
    size=SIZE,
    contrast="auto",
    ell_max=(2,),
    iterations=(3,),
    rotations=24,
    starts=1,
    halves=False,
)


@pytest.fixture(scope="module")
def bright() -> list[np.ndarray]:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=96, snr=3.5, ell_max=4)
    return list(sample.micrographs)


@pytest.mark.parametrize("model", ["window", "patch"])
def test_contrast__is_found_for_either_sign(
    bright: list[np.ndarray], model: Literal["window", "patch"]
) -> None:
    settings, findings = AUTO.changed(model=model), list[Contrast]()
    results = [
        reconstruct(micrographs, settings, on_contrast=findings.append)
        for micrographs in (bright, [-pixels for pixels in bright])
    ]
    assert [found.likelier for found in findings] == ["bright", "dark"]
    assert [result.settings.contrast for result in results] == ["bright", "dark"]
    first, second = (result.volume for result in results)
    np.testing.assert_array_equal(first, second)


def test_contrast__is_kept_and_not_found_again(
    bright: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = [-pixels for pixels in bright]
    begun = reconstruct(dark, AUTO, out=tmp_path)

    def fail(*_: Any) -> Contrast:
        raise AssertionError

    monkeypatch.setattr(finding, "find_contrast", fail)
    resumed = reconstruct(dark, AUTO, out=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.volume, begun.volume)
    assert resumed.settings == begun.settings == AUTO.changed(contrast="dark")
    assert read_settings(tmp_path / "settings.toml")["contrast"] == "dark"
    description, _ = load_checkpoint(tmp_path / "run.h5")
    assert description["settings"]["contrast"] == "dark"
    assert description["preparation"]["invert"]


@pytest.mark.parametrize(("sign", "contrast"), [(-1, "dark"), (1, "bright")])
def test_command__with_nothing_but_the_diameter(
    bright: list[np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sign: int,
    contrast: str,
) -> None:
    raw, out, again = tmp_path / "raw.mrc", tmp_path / "run", tmp_path / "again"
    write_micrograph(raw, 1e3 + 30 * sign * bright[0], 2.0)
    few = "--ell-max 2 --iterations 3 --rotations 24 --starts 1 --no-halves --no-report"
    command = ["reconstruct", str(raw), *few.split(), "--out"]
    assert cli.main([*command, str(out), "--particle-diameter", "10"]) == 0
    said = capsys.readouterr().err
    assert f"contrast: particles are {contrast}, evidence per patch" in said
    kept = read_settings(out / "settings.toml")
    assert (kept["size"], kept["contrast"]) == (7, contrast)
    volume = (out / "volume.mrc").read_bytes()
    resume = [str(out), "--particle-diameter", "10", "--resume"]
    repeat = [str(again), "--settings", str(out / "settings.toml")]
    for folder, options in ((out, resume), (again, repeat)):
        assert cli.main([*command, *options]) == 0
        assert (folder / "volume.mrc").read_bytes() == volume
        assert "contrast:" not in capsys.readouterr().err


@pytest.mark.parametrize(("invert", "contrast"), [(True, "dark"), (False, "bright")])
def test_contrast__of_runs_that_call_it_invert(
    tmp_path: Path, invert: bool, contrast: str
) -> None:
    begun = {"settings": {"size": 7, "invert": invert}, "versions": {}, "sources": []}
    save_checkpoint(tmp_path / "run.h5", begun, {})
    for asked in ("auto", contrast):
        with Journal(tmp_path, True, {"size": 7, "contrast": asked}) as journal:
            assert journal.contrast == contrast


def test_find_contrast__survives_a_ball_that_overflows(
    bright: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def overflow_first(state: Any, *more: Any) -> Any:
        begun.append(state.noise_variance)
        if len(begun) == 1:
            raise NumericalError("M-step", "a finite volume", "one of norm inf")
        return iterations(state, *more)

    monkeypatch.setattr(finding, "iterations", overflow_first)
    findings: list[Contrast] = []
    reconstruct(bright, AUTO, on_contrast=findings.append)
    assert [found.likelier for found in findings] == ["bright"]


def test_contrast__in_words() -> None:
    both, one = Contrast(dark=8.4, bright=0.01), Contrast(dark=-np.inf, bright=0.5)
    assert str(both) == (
        "particles are dark, evidence per patch 8.4000; 0.0100 if they were bright"
    )
    assert str(one) == (
        "particles are bright, evidence per patch 0.5000; no start ended in dark ones"
    )
