"""Detection limit: what theory says, what was measured, and what a run tells of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from numbasaem import cli
from numbasaem.io.mrc import write_micrograph
from numbasaem.reconstruction.detection import (
    Detectability,
    detectability,
    detection_limit,
    particle_strength,
)
from numbasaem.report import page
from numbasaem.report.record import read_record
from numbasaem.simulation.scene import simulate
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests.helpers import file_of_chains, micrograph_of_chains

SIZE = 7
OPTIONS = (
    f"--size {SIZE} --ell-max 3 --iterations 2 --rotations 48 --starts 1 "
    "--no-halves --no-report --batching full"
).split()


@pytest.mark.parametrize(
    ("n_rotations", "measured"), [(552, 6.3), (4500, 6.6), (16_000, 6.8)]
)
def test_limit__is_where_a_search_with_the_true_map_ends(
    n_rotations: int, measured: float
) -> None:
    assert detection_limit(2992**2, n_rotations) == pytest.approx(measured, abs=0.1)


def test_limit__is_the_likeliest_of_the_highest_of_so_many(
    generator: np.random.Generator,
) -> None:
    highest = generator.standard_normal((400, 20_000), dtype=np.float32).max(axis=1)
    below = np.mean(highest < detection_limit(400, 50))
    # as theory has it of the likeliest maximum
    assert below == pytest.approx(np.exp(-1), abs=0.1)


def test_limit__of_next_to_nothing_is_a_number() -> None:
    assert np.isfinite(detection_limit(1, 1))


def test_strength__is_that_of_the_signal_to_noise_ratio() -> None:
    basis = VolumeBasis(SIZE, 4)
    for snr in (4.0, 0.5):
        sample = simulate(folded_chain(SIZE), size=SIZE, pixels=200, snr=snr, ell_max=4)
        coefficients = basis.expand(sample.volume_true)
        strength = particle_strength(basis, coefficients, sample.noise_variance)
        assert strength == pytest.approx(SIZE * np.sqrt(snr), rel=0.05)


def test_strength__is_that_of_what_the_lens_leaves() -> None:
    basis = VolumeBasis(SIZE, 4)
    coefficients = basis.expand(folded_chain(SIZE))
    half = np.zeros((2 * SIZE - 1, 2 * SIZE - 1))
    half[SIZE - 1, SIZE - 1] = 0.5
    whole = particle_strength(basis, coefficients, 1.0)
    assert particle_strength(basis, coefficients, 1.0, half) == pytest.approx(whole / 2)


def test_outcome__on_either_side_of_the_limit() -> None:
    limit = detection_limit(10**6, 500)
    above, below = (Detectability(limit + d, 10**6, 500) for d in (0.1, -0.1))
    assert above.is_pickable
    assert not below.is_pickable
    assert "could have been picked one by one" in str(above)
    assert "too weak to be picked" in str(below)


def reconstruct(micrograph: Path, out: Path, *more: str) -> int:
    words = ["reconstruct", str(micrograph), "--out", str(out), *OPTIONS, *more]
    return cli.main(words)


def test_run__says_it_in_lines_json_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    micrograph, out = file_of_chains(tmp_path, SIZE, 120), tmp_path / "run"
    assert reconstruct(micrograph, out) == 0
    lines = capsys.readouterr().out.splitlines()
    strength = detectability(out)
    assert strength is not None
    assert (strength.n_positions, strength.n_rotations) == (120**2, 48)
    assert str(strength) in lines
    assert reconstruct(micrograph, out, "--resume", "--json") == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["strength"] == pytest.approx(strength.strength)
    assert record["detection_limit"] == pytest.approx(strength.limit)
    assert record["pickable"] is strength.is_pickable
    text = page.compose(read_record(out))
    assert f"detection limit {strength.limit:.1f} σ" in text
    micrograph.unlink()
    assert detectability(out) is None
    assert "detection limit" not in page.compose(read_record(out))


def test_run__in_coloured_noise_is_seen_through_its_filter(tmp_path: Path) -> None:
    pixels = micrograph_of_chains(SIZE, 160)
    write_micrograph(tmp_path / "m.mrc", pixels, 1.0)
    assert reconstruct(tmp_path / "m.mrc", tmp_path / "run", "--whiten") == 0
    strength = detectability(tmp_path / "run")
    assert strength is not None
    assert strength.strength > 0
