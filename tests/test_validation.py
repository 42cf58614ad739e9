"""Verdicts on data with a molecule and on noise, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from numbasaem import cli
from numbasaem.errors import InputError
from numbasaem.io.mrc import write_micrograph
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.validation.checks import Check, Validation, validate
from numbasaem.validation.control import noise_like
from numbasaem.validation.evidence import Mean
from numbasaem.volume.phantom import folded_chain
from tests import helpers

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 7
SETTINGS = Settings(
    size=SIZE,
    ell_max=(2, 4),
    iterations=(5, 6),
    rotations=60,
    batch_fraction=0.4,
    starts=2,
)
CHECKS = ("held-out evidence", "picks above chance", "half maps", "another start")


def noise() -> np.ndarray:
    return helpers.noise(245, 245, seed=3)


def with_molecules() -> np.ndarray:
    sample = simulate(folded_chain(SIZE), size=SIZE, pixels=245, snr=8, ell_max=4)
    return sample.micrographs[0]


def reconstructed(folder: Path, pixels: np.ndarray, settings: Settings) -> Path:
    write_micrograph(folder / "micrograph.mrc", pixels, 1.0)
    reconstruct([folder / "micrograph.mrc"], settings, out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    settings = SETTINGS.model_copy(update={"halves": False})
    return reconstructed(folder, with_molecules(), settings)


def asked(validation: Validation) -> dict[str, bool]:
    return {
        name: check.passed
        for name, check in zip(CHECKS, validation.checks, strict=True)
        if check.question.startswith(name)
    }


def test_validate__supports_a_molecule(run: Path) -> None:
    untouched = (run / "run.h5").read_bytes()
    told: list[tuple[str, int, int]] = []
    found = validate(
        run, on_iteration=lambda i: told.append((i.run, i.total_done, i.total))
    )
    assert asked(found) == dict.fromkeys(CHECKS, True)
    assert found.verdict == "supported"
    record = json.loads((run / "validation.json").read_text())
    assert record == found.record()
    for check in record["checks"]:
        question, passed, *figures = check.values()
        assert isinstance(question, str)
        assert isinstance(passed, bool)
        assert len(figures) >= 3
        assert all(isinstance(figure, float) for figure in figures)
    assert (run / "run.h5").read_bytes() == untouched
    # two halves, two of the control, one more start
    assert {name.split("-")[0] for name, _, _ in told} == {
        "half1",
        "half2",
        "noise half1",
        "noise half2",
        "again full",
    }
    done, total = told[-1][1:]
    assert done <= total == 5 * SETTINGS.iterations_per_run
    assert [row[1] for row in told] == sorted(row[1] for row in told)


def test_validate__does_not_support_noise(tmp_path: Path) -> None:
    folder = reconstructed(tmp_path, noise(), SETTINGS)
    found = validate(folder)
    passed = asked(found)
    assert not passed["held-out evidence"]
    assert not passed["picks above chance"]
    assert found.verdict == "not supported"


def uneven_coloured_noise() -> np.ndarray:
    """Smooth noise that grows from the left to the right."""
    smooth = gaussian_filter(np.random.default_rng(4).standard_normal((245, 245)), 1.2)
    return (noise() + 3 * smooth) * np.linspace(0.3, 2.0, 245)


def noise_with_hot_pixels() -> np.ndarray:
    """White noise, one pixel in a thousand far above it."""
    hot = np.random.default_rng(4).random((245, 245)) < 1e-3
    return noise() + 8 * hot


@pytest.mark.parametrize("make", [uneven_coloured_noise, noise_with_hot_pixels])
def test_validate__does_not_support_noise_of_other_kinds(
    make: Callable[[], np.ndarray], tmp_path: Path
) -> None:
    pixels = make()
    standard = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    folder = reconstructed(tmp_path, standard, SETTINGS)
    assert validate(folder).verdict == "not supported"


def test_validate__verdict_does_not_outlive_its_run(tmp_path: Path) -> None:
    verdict = tmp_path / "run" / "validation.json"
    verdict.parent.mkdir()
    verdict.write_text('{"verdict": "supported", "figures": {}}')
    reconstructed(tmp_path, noise(), SETTINGS.model_copy(update={"halves": False}))
    assert not verdict.exists()


def ring_power(pixels: np.ndarray) -> np.ndarray:
    """Power in rings of frequency."""
    power = np.abs(np.fft.fft2(pixels)) ** 2
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n) for n in pixels.shape]))
    ring = (radius / 0.05).astype(int).ravel()[1:]
    return np.bincount(ring, power.ravel()[1:]) / np.bincount(ring)


def test_noise_like__keeps_pixel_values() -> None:
    pixels = noise()
    pixels[::40, ::37] += 9
    found = noise_like(pixels, 28.0, np.random.default_rng(0))
    quantiles = (0, 0.01, 0.5, 0.99, 0.999, 0.9999, 1)
    np.testing.assert_allclose(
        np.quantile(found, quantiles),
        np.quantile(pixels - pixels.mean(), quantiles),
        rtol=0.1,
        atol=0.02,
    )


def test_noise_like__keeps_spectrum() -> None:
    pixels = with_molecules()
    found = noise_like(pixels + 5, 28.0, np.random.default_rng(0))
    np.testing.assert_allclose(ring_power(found), ring_power(pixels), rtol=0.05)


def test_noise_like__keeps_unevenness_and_nothing_else() -> None:
    pixels = with_molecules() * np.linspace(0.5, 1.5, 245)
    found = noise_like(pixels + 5, 28.0, np.random.default_rng(0))
    for part in (np.s_[:, :80], np.s_[:, -80:]):
        assert found[part].std() == pytest.approx(pixels[part].std(), rel=0.1)
    assert abs(np.corrcoef(found.ravel(), pixels.ravel())[0, 1]) < 0.05


def test_mean__ahead_in_standard_deviations() -> None:
    assert Mean(5.0, 0.3).ahead_of(Mean(4.0, 0.4)) == pytest.approx(2.0)
    assert Mean(1.0, 0.0).ahead_of(Mean(1.0, 0.0)) == 0


def test_record__holds_numbers_and_no_sentences() -> None:
    figures = {"correlation": 0.41, "lead": np.inf}
    check = Check("half maps, correlation", "0.41", "at least 0.5", False, figures)
    record = Validation((check,), np.array([1, np.nan]), np.zeros(2)).record()
    assert record == {
        "verdict": "not supported",
        "checks": [
            {
                "question": "half maps, correlation",
                "passed": False,
                "correlation": 0.41,
                "lead": None,
            }
        ],
        "fsc": [1.0, None],
        "control_fsc": [0.0, 0.0],
    }
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_validate__command(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("numbasaem.cli.output.write_report", lambda *_: None)
    found = Validation(
        tuple(Check(name, "1", "at least 0", passed=True) for name in CHECKS),
        np.ones(4),
        np.zeros(4),
    )
    monkeypatch.setattr("numbasaem.validation.checks.validate", lambda *_, **__: found)
    assert cli.main(["validate", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "verdict: supported"
    assert sum(line.startswith("    passed: ") for line in printed) == len(CHECKS)
    assert cli.main(["validate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.record()


def test_validate__other_or_missing_micrographs(run: Path, tmp_path: Path) -> None:
    micrograph = run.parent / "micrograph.mrc"
    kept = micrograph.read_bytes()
    try:
        write_micrograph(micrograph, noise(), 1.0)
        with pytest.raises(InputError, match=r"as it was when the run began"):
            validate(run)
        micrograph.unlink()
        with pytest.raises(InputError, match=r"micrograph\.mrc: expected an MRC file"):
            validate(run)
    finally:
        micrograph.write_bytes(kept)
    with pytest.raises(InputError, match=r"run\.h5: expected a checkpoint of a run"):
        validate(tmp_path)


def test_validate__of_no_finished_run(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "volume.mrc").unlink()
    with pytest.raises(InputError, match="expected a run that has ended"):
        validate(folder)
