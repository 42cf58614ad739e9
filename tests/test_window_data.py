"""Reconstruction with the window model: tiles, halves, checkpoints, the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.assessment.alignment import align
from numbasaem.errors import InputError
from numbasaem.geometry.view_grid import ViewGrid
from numbasaem.io.mrc import write_micrograph
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.shift_prior import uniform_shift_prior
from numbasaem.observations.statistics import Statistics
from numbasaem.observations.window_data import Windows, WindowSet, load_windows
from numbasaem.observations.window_expectation import window_expectation
from numbasaem.reconstruction.driver import reconstruct
from numbasaem.reconstruction.memory import limit_threads_to_memory
from numbasaem.reconstruction.result import Result
from numbasaem.settings import Settings
from numbasaem.simulation.scene import Simulation, simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests.helpers import (
    Interruption,
    assert_close,
    assert_same_result,
    interrupted_after,
)

SIZE = 7
SETTINGS = Settings(
    size=SIZE,
    model="window",
    ell_max=(2, 3),
    iterations=(4, 3),
    rotations=48,
    batch_fraction=0.5,
    starts=1,
    seed=3,
    level=False,
)


@pytest.fixture(scope="module")
def sample() -> Simulation:
    volume = folded_chain(SIZE)
    return simulate(
        volume, size=SIZE, pixels=190, micrographs=2, snr=4, ell_max=3, seed=1
    )


def load(micrographs: Sequence[np.ndarray]) -> WindowSet:
    return load_windows(micrographs, SETTINGS, lambda *_: None)


BASIS, VIEWS = VolumeBasis(SIZE, 3), ViewGrid(8)
VOLUME = 0.4 * np.random.default_rng(0).standard_normal(BASIS.n_coefficients)


def all_statistics(data: WindowSet, chosen: np.ndarray | None = None) -> Statistics:
    part = data.part(chosen, None)
    hypotheses = Hypotheses(
        part.projections(BASIS, VIEWS), VOLUME, uniform_shift_prior(SIZE, 0.6), 1.0
    )
    return part.expectation(np.arange(len(part)), hypotheses)


def test_tiles__add_up_to_the_micrographs(sample: Simulation) -> None:
    found = all_statistics(load(sample.micrographs))
    first, second = (
        window_expectation(pixels, BASIS, VOLUME, VIEWS, 1.0, 0.6)[0]
        for pixels in sample.micrographs
    )
    wanted = first + second
    for name in ("view_weight", "feature_sums", "rotation_mass", "patch_energy"):
        assert_close(getattr(found, name), getattr(wanted, name), 1e-3)
    assert found.n_patches == pytest.approx(wanted.n_patches)
    assert found.n_patches * SIZE**2 == pytest.approx(2 * 184**2)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-5)
    assert found.empty_mass == pytest.approx(wanted.empty_mass, rel=0.02)


@pytest.mark.parametrize("n_micrographs", [1, 2])
def test_halves__share_no_pixels(sample: Simulation, n_micrographs: int) -> None:
    micrographs = sample.micrographs[:n_micrographs]
    data = load(micrographs)
    halves = data.halves(seed=0)
    assert sorted(np.concatenate(halves)) == list(range(len(data.micrograph)))
    wanted = [all_statistics(data, half) for half in halves]
    assert min(one.n_patches for one in wanted) > 300
    seen = []
    for y, x in [(3, 5), (30, 150), (64, 70), (70, 180), (100, 100), (150, 20)]:
        other = [pixels.copy() for pixels in micrographs]
        other[0][y : y + 4, x : x + 4] += 3
        found = [all_statistics(load(other), half) for half in halves]
        seen += [
            [
                one.log_likelihood != before.log_likelihood
                for one, before in zip(found, wanted, strict=True)
            ]
        ]
    np.testing.assert_array_equal(np.sum(seen, axis=1), 1)  # each by one half


@pytest.mark.filterwarnings("ignore:.*is left out:numbasaem.errors.RunWarning")
def test_dead_area__no_window_in_it() -> None:
    pixels = np.random.default_rng(0).standard_normal((90, 80)).astype(np.float32)
    pixels[:, 50:] = 7.0
    settings = SETTINGS.model_copy(update={"mend": True})
    data = load_windows([pixels], settings, lambda *_: None)
    assert data.prepared[0].excluded[:, 50:].all()
    part = data.part(None, None)
    assert len(part) * part.patches_each * SIZE**2 == pytest.approx(84 * 44)
    nothing = [np.zeros(pixels.shape, bool)]
    with pytest.raises(InputError, match="micrographs: expected 7 x 7 usable pixels"):
        Windows([pixels], nothing, SIZE, SIZE, data.pixel_sums)


@pytest.fixture(scope="module")
def unbroken(sample: Simulation) -> Result:
    return reconstruct(sample.micrographs, SETTINGS)


def test_reconstruct__finds_the_structure(sample: Simulation, unbroken: Result) -> None:
    truth = folded_chain(SIZE)
    best = unbroken.basis.evaluate(unbroken.basis.expand(truth))
    assert align(unbroken.volume, best).correlation > 0.9
    assert unbroken.noise_variance == pytest.approx(sample.noise_variance, rel=0.05)
    assert unbroken.fsc is not None
    history = [row for row in unbroken.history if row.run == "full"]
    coverage = np.mean([len(one) for one in sample.coordinates]) * 13**2 / 184**2
    assert history[-1].empty_fraction == pytest.approx(1 - coverage, abs=0.1)


def test_empty_prior__held_at_first(sample: Simulation) -> None:
    settings = SETTINGS.model_copy(update={"ell_max": (2,), "halves": False})
    empty = [
        reconstruct(
            sample.micrographs, settings.model_copy(update={"iterations": (n,)})
        )
        .shift_prior[SIZE]
        .sum()
        for n in (1, 5, 6)
    ]
    assert empty[1] == pytest.approx(empty[0])
    assert empty[2] != pytest.approx(empty[0], rel=1e-3)


@pytest.mark.parametrize("batching", ["stochastic", "incremental", "online", "full"])
def test_resume__as_if_never_interrupted(
    sample: Simulation, tmp_path: Path, batching: str
) -> None:
    settings = SETTINGS.model_copy(update={"batching": batching, "halves": False})
    wanted = reconstruct(sample.micrographs, settings)
    with pytest.raises(Interruption):
        reconstruct(
            sample.micrographs,
            settings,
            out=tmp_path,
            on_iteration=interrupted_after(2),
        )
    found = reconstruct(sample.micrographs, settings, out=tmp_path, resume=True)
    assert_same_result(found, wanted)


def test_threads__same_bits(sample: Simulation) -> None:
    settings = SETTINGS.model_copy(update={"halves": False})
    one = reconstruct(sample.micrographs, settings.model_copy(update={"threads": 1}))
    assert_same_result(one, reconstruct(sample.micrographs, settings))


def test_memory__planned(sample: Simulation) -> None:
    _, plan = limit_threads_to_memory(SETTINGS, sample.micrographs)
    patch = SETTINGS.model_copy(update={"model": "patch"})
    assert plan.total < 2 * limit_threads_to_memory(patch, sample.micrographs)[1].total
    with pytest.raises(InputError, match="max_memory"):
        limit_threads_to_memory(
            SETTINGS.model_copy(update={"max_memory": 0.1}), sample.micrographs
        )


def test_command__model_window(sample: Simulation, tmp_path: Path) -> None:
    path, out = tmp_path / "micrograph.mrc", tmp_path / "run"
    write_micrograph(path, sample.micrographs[0], 1.0)
    options = "--size 7 --ell-max 2 --iterations 2 --rotations 24 --starts 1"
    command = ["reconstruct", str(path), "--out", str(out), *options.split()]
    assert cli.main([*command, "--model", "window"]) == 0
    assert 'model = "window"' in (out / "settings.toml").read_text()
    for name in ("volume.mrc", "volume_half2.mrc", "fsc.star", "report.html"):
        assert (out / name).is_file()


@pytest.mark.parametrize(
    ("distance", "pixel_size", "words"),
    [
        (0.5, 1.0, "at least one pixel, 1 A, found 0.5 A"),
        (900.0, 2.0, "at most the 190 pixels of a micrograph, found 450 pixels"),
        (30.0, None, "a pixel size with it, such as `pixel_size`, found none"),
    ],
)
def test_least_distance__is_one_of_the_micrograph(
    sample: Simulation, distance: float, pixel_size: float | None, words: str
) -> None:
    settings = SETTINGS.changed(least_distance=distance, pixel_size=pixel_size)
    with pytest.raises(InputError, match=f"least_distance: expected {words}"):
        load_windows(sample.micrographs, settings, lambda *_: None)
