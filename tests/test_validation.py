"""Verdicts on data with a molecule and on noise, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from numbasaem import cli
from numbasaem.aliases import no_progress
from numbasaem.assessment.fsc import correlation
from numbasaem.errors import InputError
from numbasaem.geometry.grids import ball
from numbasaem.io.mrc import write_micrograph
from numbasaem.micrographs.sources import MicrographFile
from numbasaem.observations.hypotheses import Hypotheses
from numbasaem.observations.patch_data import Patches, PatchSet, load_patches
from numbasaem.reconstruction.driver import Callbacks, reconstruct
from numbasaem.reconstruction.result import HALVES, RUNS
from numbasaem.reconstruction.starts import random_start
from numbasaem.reconstruction.state import RunPlace
from numbasaem.settings import Settings
from numbasaem.simulation.scene import simulate
from numbasaem.validation import algorithm, checks, omission
from numbasaem.validation.algorithm import validate
from numbasaem.validation.control import noise_like
from numbasaem.validation.evidence import Mean, held_out_evidence
from numbasaem.validation.memory_of_start import first_volumes, shape, shape_of_map
from numbasaem.validation.omission import (
    ITERATIONS,
    N_BALLS,
    Omission,
    balls_of_mass,
    mean_returned,
    omit_in_turn,
    share_returned,
)
from numbasaem.validation.outcome import Check, Validation
from numbasaem.validation.strength import Scatter
from numbasaem.volume.basis import VolumeBasis
from numbasaem.volume.phantom import folded_chain
from tests import helpers
from tests.helpers import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numbasaem.reconstruction.state import Iteration, RunState

SIZE = 7
SETTINGS = Settings(
    size=SIZE,
    model="patch",
    ell_max=(2, 4),
    iterations=(5, 6),
    rotations=60,
    batch_fraction=0.4,
    starts=2,
)
CHECKS = ("held-out evidence", "picks above chance", "half maps", "scatter", "memory")


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
        run,
        thorough=True,
        omit=True,
        on_iteration=lambda i: told.append((i.run, i.total_done, i.total)),
    )
    *usual, other = found.checks
    assert asked(replace(found, checks=tuple(usual))) == dict.fromkeys(CHECKS, True)
    assert other.question.startswith("another start")
    assert found.verdict == "supported"
    assert len(found.omissions) == N_BALLS
    # one voxel holds much of a ball at this size, and patches take their time
    assert mean_returned(found.omissions) > 0.4
    record = json.loads((run / "validation.json").read_text())
    assert record == found.record()
    for check in record["checks"]:
        question, passed, *figures = check.values()
        assert isinstance(question, str)
        assert isinstance(passed, bool)
        assert len(figures) >= 3
        assert all(isinstance(figure, float) for figure in figures)
    assert (run / "run.h5").read_bytes() == untouched
    # two halves, two of the control, one more start, the balls
    assert {name.split("-")[0] for name, _, _ in told} == {
        "half1",
        "half2",
        "noise half1",
        "noise half2",
        "again full",
        *(f"omitted {number + 1}" for number in range(N_BALLS)),
    }
    done, total = told[-1][1:]
    assert done <= total == 5 * SETTINGS.iterations_per_run + N_BALLS * ITERATIONS
    assert [row[1] for row in told] == sorted(row[1] for row in told)


def test_validate__does_not_support_noise(tmp_path: Path) -> None:
    folder = reconstructed(tmp_path, noise(), SETTINGS)
    found = validate(folder, omit=True)
    passed = asked(found)
    assert not passed["held-out evidence"]
    assert not passed["picks above chance"]
    assert not passed["memory"]
    assert mean_returned(found.omissions) < 0.3
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
        "omissions": [],
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
        (Omission((0.0, 1.0, -2.0), 1.5, 0.92), Omission((1.0, 0.0, 0.0), 1.5, 0.88)),
    )
    monkeypatch.setattr(algorithm, "validate", lambda *_, **__: found)
    assert cli.main(["validate", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "verdict: supported"
    place = "left out within 1.5 voxels of (0.0, 1.0, -2.0): 92% came back"
    assert place in printed
    assert printed[-2] == "on average: 90% came back"
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
        with pytest.raises(InputError, match=r"micrograph\.mrc: .* no such file"):
            validate(run)
    finally:
        micrograph.write_bytes(kept)
    with pytest.raises(InputError, match=r"run\.h5: expected a checkpoint of a run"):
        validate(tmp_path)


class Sought(Exception):
    """Where a validation looks for micrographs."""


def sought(run: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Path]:
    def stop(inputs: list[MicrographFile], *_: object) -> None:
        raise Sought([file.path for file in inputs])

    with monkeypatch.context() as patch:
        patch.setattr(algorithm, "_data_and_control", stop)
        with pytest.raises(Sought) as caught:
            validate(run, **options)
    paths: list[Path] = caught.value.args[0]
    return paths


def test_validate__finds_micrographs_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "before"
    monkeypatch.chdir(tmp_path)
    names = [Path("grid1/m.mrc"), Path("grid2/m.mrc")]
    for seed, name in enumerate(names):
        path = project / "mics" / name
        path.parent.mkdir(parents=True)
        write_micrograph(path, helpers.noise(60, 60, seed=seed), 1.0)
    settings = Settings(
        size=SIZE,
        model="patch",
        ell_max=(2,),
        iterations=(1,),
        rotations=24,
        starts=1,
        halves=False,
    )
    reconstruct(["before/mics/*/m.mrc"], settings, out="before/deep/run")

    # the project as a whole, though others now lie where its micrographs were
    after = project.rename(tmp_path / "after")
    for name in names:
        (project / "mics" / name).parent.mkdir(parents=True)
        (project / "mics" / name).touch()
    run = after / "deep" / "run"
    wanted = [after / "mics" / name for name in names]
    assert sought(run, monkeypatch) == wanted
    monkeypatch.chdir(run)
    assert sought(Path(), monkeypatch) == wanted
    # the run alone
    shutil.rmtree(project)
    (after / "mics").rename(tmp_path / "elsewhere")
    line = refusal(validate, run)
    assert line.endswith("or its folder, `micrographs`, found no such file")
    wanted = [tmp_path / "elsewhere" / name for name in names]
    assert sought(run, monkeypatch, micrographs=tmp_path / "elsewhere") == wanted
    assert refusal(validate, run, micrographs=run) == (
        f"{run}: expected m.mrc in it, found no such file"
    )
    # a finished run that is resumed knows their new place
    result = reconstruct(wanted, settings, out=run, resume=True)
    assert len(result.history) == 1
    assert sought(run, monkeypatch) == wanted


@pytest.mark.filterwarnings("ignore:.*pixel size 1 A as given")
def test_validate__finds_micrographs_by_their_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "store" / "4f2a9c"
    stored.parent.mkdir()
    pixels = helpers.noise(60, 60)
    tifffile.imwrite(stored, pixels)
    settings = Settings(
        size=SIZE,
        model="patch",
        ell_max=(2,),
        iterations=(1,),
        rotations=24,
        starts=1,
        halves=False,
        pixel_size=1.0,
    )
    for name in ("link.tif", "link"):
        link, run = tmp_path / name, tmp_path / f"run of {name}"
        link.symlink_to(stored)
        reconstruct([link], settings, out=run)
        assert sought(run, monkeypatch) == [link]
        ((image,), _) = MicrographFile(link, name).open()
        np.testing.assert_array_equal(image, pixels[::-1])


def test_validate__of_no_finished_run(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "volume.mrc").unlink()
    with pytest.raises(InputError, match="expected a run that has ended"):
        validate(folder)


# --- which half is asked about which map, with stand-ins ----------------------------


@dataclass
class Opinions:
    """Stands for observations: how likely the map of each number is to them."""

    evidence_of_map: dict[float, float]
    n_patches: int = 40

    def __len__(self) -> int:
        return self.n_patches

    def projections(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace()

    def expectation(
        self, chosen: np.ndarray, hypotheses: Hypotheses, *_: object
    ) -> SimpleNamespace:
        n = len(chosen)
        white = -n * SIZE**2 * (1 + np.log(2 * np.pi)) / 2
        number_of_group = chosen[0] // (1 + chosen[-1] - chosen[0])
        unlike_other_groups = 0.005 * (-1) ** number_of_group
        number = hypotheses.volume_coefficients[0]
        evidence = self.evidence_of_map[number] + unlike_other_groups
        return SimpleNamespace(
            n_patches=n,
            patch_energy=n * SIZE**2,
            log_likelihood=white + n * evidence,
        )


def runs_of_maps(*maps: float) -> dict[str, RunState]:
    """Last states of the half runs, with numbers that stand for their maps."""
    start = random_start(Patches(helpers.noise(4, SIZE, SIZE)), SETTINGS, 0, 0)
    last = replace(start, stage=len(SETTINGS.schedule) - 1)
    return {
        name: replace(last, volume_coefficients=np.array([number]))
        for name, number in zip(HALVES, maps, strict=True)
    }


def test_held_out_evidence__asks_each_half_about_the_map_of_the_other() -> None:
    """A map is always likely to the half that made it: that is no evidence."""
    halves: Any = (Opinions({1.0: 9.0, 2.0: 0.2}), Opinions({1.0: 0.4, 2.0: 9.0}))
    evidence = held_out_evidence(runs_of_maps(1.0, 2.0), halves, SETTINGS)
    assert evidence.value == pytest.approx(0.3, abs=0.01)


def test_checks__compare_data_and_noise_under_the_right_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The data under their maps, noise under its own, and noise under those of data."""
    asked_of = kept_shapes(monkeypatch)
    own = 90.0
    data: Any = (
        Opinions({1.0: own, 2.0: 3.0, 3.0: 40.0, 4.0: 40.0}),
        Opinions({1.0: 5.0, 2.0: own, 3.0: 40.0, 4.0: 40.0}),
    )
    noise: Any = (
        Opinions({3.0: own, 4.0: 0.2, 1.0: 0.6, 2.0: 1.0}),
        Opinions({3.0: 0.4, 4.0: own, 1.0: 1.2, 2.0: 0.6}),
    )
    runs = runs_of_maps(1.0, 2.0)
    of_data = {**runs, "full": runs["half1"]}
    found = checks.checks_of(
        checks.Sample(data, of_data, SETTINGS),
        checks.Sample(noise, runs_of_maps(3.0, 4.0), SETTINGS),
        runs["half2"],
        no_progress,
        thorough=True,
    )
    held_out, by_chance = (check.figures for check in found[:2])
    names = ("evidence", "evidence_in_noise")
    figures = [check[name] for check in (held_out, by_chance) for name in names]
    assert figures == pytest.approx([4.0, 0.3, 4.0, 1.1], abs=0.01)
    # full, which is half 1 here, and the halves; then those of noise
    assert asked_of["maps"] == [1.0, 1.0, 2.0, 3.0, 4.0]
    assert asked_of["starts"] == [*RUNS, *HALVES]


@pytest.mark.parametrize(
    ("ratio", "n_free", "passed"),
    [(1.0, 38, True), (0.13, 38, False), (0.13, 2, True), (0.6, 400, True)],
)
def test_strengths_differ__fails_where_they_are_surely_alike(
    ratio: float, n_free: int, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few observations cannot fail, nor can strengths that differ enough."""
    asked: list[Any] = []

    def scatter(*arguments: Any) -> Scatter:
        asked.extend(arguments)
        return Scatter(ratio, n_free)

    monkeypatch.setattr(checks, "scatter_of_strength", scatter)
    data = checks.Sample((), {}, SETTINGS)
    check = checks._strengths_differ(data, 4)
    assert check.passed is passed
    assert check.figures["ratio"] == ratio
    assert asked == [data.runs, data.halves, SETTINGS, 4]


def test_checks__ask_for_no_memory_of_a_start_that_data_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_of = kept_shapes(monkeypatch)
    halves: Any = (Opinions(dict.fromkeys((1.0, 2.0), 1.0)),) * 2
    settings = SETTINGS.model_copy(update={"start": "moments"})
    last = len(settings.schedule) - 1
    runs = runs_of_maps(1.0, 2.0)
    runs = {name: replace(run, stage=last) for name, run in runs.items()}
    sample = checks.Sample(halves, runs, settings)
    found = checks.checks_of(sample, sample, None, no_progress, thorough=False)
    assert asked_of == {"maps": [], "starts": []}
    questions = [check.question.split()[0] for check in found]
    assert questions == ["held-out", "picks", "half", "scatter"]


def kept_shapes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Note whose maps and whose starts are compared; all maps agree."""
    asked_of: dict[str, list[Any]] = {"maps": [], "starts": []}

    def of_map(state: RunState, _: object) -> np.ndarray:
        coefficients = state.volume_coefficients
        asked_of["maps"].append(coefficients[0])
        return coefficients

    def starts(run: str, *_: object) -> list[np.ndarray]:
        asked_of["starts"].append(run)
        return [np.zeros(1)]

    monkeypatch.setattr(checks, "_agreement", lambda *_: (1.0, np.ones(4)))
    monkeypatch.setattr(checks, "scatter_of_strength", lambda *_: Scatter(1.0, 38))
    monkeypatch.setattr(checks, "shape_of_map", of_map)
    monkeypatch.setattr(checks, "first_volumes", starts)
    monkeypatch.setattr(checks, "shape", lambda start, _: start)
    monkeypatch.setattr(checks, "align", lambda *_: SimpleNamespace(correlation=1.0))
    monkeypatch.setattr(checks, "correlation", lambda *_: 0.2)
    return asked_of


NAMED_CORRELATIONS = [((0.9, 0.95, 0.92), 0.6, True), ((0.9, 0.7, 0.9), 0.8, False)]


@pytest.mark.parametrize(("between", "with_start", "passed"), NAMED_CORRELATIONS)
def test_start_forgotten__least_between_against_most_with_start(
    between: tuple[float, ...],
    with_start: float,
    passed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept_shapes(monkeypatch)
    left = [*between, 0.7]  # three pairs of maps of the data, one of noise
    monkeypatch.setattr(
        checks, "align", lambda *_: SimpleNamespace(correlation=left.pop(0))
    )
    own = [0.1, with_start, 0.2, 0.8, 0.9]
    monkeypatch.setattr(checks, "correlation", lambda *_: own.pop(0))
    runs = runs_of_maps(1.0, 2.0)
    data = checks.Sample((Opinions({}),) * 2, {"full": runs["half1"], **runs}, SETTINGS)  # type: ignore[arg-type]
    noise = checks.Sample(data.halves, runs, SETTINGS)
    check = checks._start_forgotten(data, noise)
    assert check.passed is passed
    assert list(check.figures.values()) == [min(between), with_start, 0.7, 0.9]


def test_first_volumes__are_those_that_runs_begin_from() -> None:
    """A map that is its start still agrees with that one, in another scale, wholly."""
    data = Patches(helpers.noise(4, SIZE, SIZE))
    last = VolumeBasis(SIZE, SETTINGS.degrees[-1])
    first_degree = SETTINGS.schedule[0].ell_max
    for number, run in enumerate(RUNS):
        for start, volume in enumerate(first_volumes(run, data, SETTINGS)):
            begun = random_start(data, SETTINGS, number, start).volume_coefficients
            np.testing.assert_array_equal(volume, begun)
            kept = VolumeBasis(SIZE, first_degree).lift(begun, last.ell_max)
            kept[last.indices[:, 0] > first_degree] = 7.0
            done = replace(
                random_start(data, SETTINGS, number, start),
                volume_coefficients=3 * kept,
                stage=len(SETTINGS.schedule) - 1,
            )
            assert correlation(
                shape_of_map(done, SETTINGS), shape(volume, SETTINGS)
            ) == pytest.approx(1.0)


def test_shape__is_blind_to_what_is_round() -> None:
    basis = VolumeBasis(SIZE, SETTINGS.schedule[0].ell_max)
    round_ones = np.where(basis.indices[:, 0] == 0, 5.0, 0.0)
    assert not shape(round_ones, SETTINGS).any()


# --- what comes back of a part that is left out -------------------------------------


def test_balls_of_mass__hold_a_twelfth_each_and_lie_apart() -> None:
    volume = folded_chain(15)
    balls = balls_of_mass(volume)
    assert len(balls) == N_BALLS
    mass = np.maximum(volume, 0.0) * ball(15)
    points = np.moveaxis(np.indices(volume.shape), 0, -1) - 7
    for centre, radius in balls:
        inside = np.linalg.norm(points - centre, axis=-1) <= radius
        # as near as whole voxels come
        assert 1 / 12 <= mass[inside].sum() / mass.sum() < 1.8 / 12
    apart = [np.linalg.norm(a - b) for (a, _), (b, _) in combinations(balls, 2)]
    assert min(apart) > 1.5


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_share_returned__of_a_part_inside_the_ball_alone(share: float) -> None:
    generator = np.random.default_rng(0)
    whole, without, elsewhere = generator.standard_normal((3, 5, 5, 5))
    inside = ball(5, 1.5)
    after = np.where(inside, without + share * (whole - without), elsewhere)
    assert share_returned(whole, without, after, inside) == pytest.approx(share)


def test_validate__omits_from_one_half_and_continues_on_the_other(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def take(state: object, data: object, *_: object) -> tuple[Omission, ...]:
        given.extend([state, data])
        return ()

    monkeypatch.setattr(algorithm, "omit_in_turn", take)
    sample, *_ = given_to_checks(copied, monkeypatch, thorough=True, omit=True)
    assert given == [sample.runs["half1"], sample.halves[1]]
    assert sample.halves[0] != sample.halves[1]


def test_omit_in_turn__goes_on_without_the_ball(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing comes back if nothing is done, and the run stays as it was."""
    begun: list[np.ndarray] = []

    def idle(state: RunState, *_: object) -> list[Iteration]:
        begun.append(state.volume_coefficients)
        return []

    monkeypatch.setattr(omission, "iterations", idle)
    basis = VolumeBasis(SIZE, SETTINGS.degrees[-1])
    state = replace(
        runs_of_maps(1.0, 2.0)["half1"],
        volume_coefficients=basis.expand(folded_chain(SIZE)),
    )
    whole = basis.evaluate(state.volume_coefficients)
    outcome = omit_in_turn(
        state,
        Patches(helpers.noise(4, SIZE, SIZE)),
        SETTINGS,
        Callbacks(None, no_progress),
        RunPlace("omitted ", 0, 60),
    )
    assert [each.returned for each in outcome] == [0.0] * N_BALLS
    for coefficients, (centre, radius) in zip(begun, balls_of_mass(whole), strict=True):
        points = np.moveaxis(np.indices(whole.shape), 0, -1) - SIZE // 2
        inside = np.linalg.norm(points - centre, axis=-1) <= radius
        assert basis.evaluate(coefficients)[inside].sum() < 0.8 * whole[inside].sum()


def test_data_and_control__of_one_micrograph() -> None:
    """The data are its pixels as they are, the control other ones that are alike."""
    pixels = with_molecules()
    data, control = algorithm._data_and_control([pixels], SETTINGS, no_progress)
    assert isinstance(data, PatchSet)
    assert isinstance(control, PatchSet)
    untouched = load_patches([pixels], SETTINGS, no_progress)
    np.testing.assert_array_equal(data.patches, untouched.patches)
    assert control.patches.shape == data.patches.shape
    assert control.patches.std() == pytest.approx(data.patches.std(), rel=0.02)
    assert abs(np.corrcoef(control.patches.ravel(), data.patches.ravel())[0, 1]) < 0.05


# --- what a validation works with, without its work ---------------------------------

Part = tuple[str, int, int | None]
"""Stands for observations: whose, how many (0: all), and on how many threads."""


@dataclass
class NamedDataSet:
    """Stands for a data set of five observations."""

    name: str

    def halves(self, _: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(2), np.arange(2, 5)

    def part(self, chosen: np.ndarray | None, threads: int | None) -> Part:
        return self.name, 0 if chosen is None else len(chosen), threads


def given_to_checks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Any, Any, Any, Settings]:
    """Sample, noise, another run and settings; a run is the part that it was on."""
    given: list[Any] = []

    def take(*arguments: Any, thorough: bool) -> tuple[Check, ...]:
        given.extend(arguments)
        return ()

    data_sets = NamedDataSet("data"), NamedDataSet("control")
    with monkeypatch.context() as patch:
        patch.setattr(NamedDataSet, "sources", [], raising=False)
        patch.setattr(algorithm, "_data_and_control", lambda *_: data_sets)
        patch.setattr(algorithm, "refuse_other_sources", lambda *_: None)
        patch.setattr(
            algorithm, "run_all", lambda journal, parts, *_: journal.runs.update(parts)
        )
        patch.setattr(algorithm, "checks_of", take)
        patch.setattr(checks, "_agreement", lambda *_: (1.0, np.ones(4)))
        validate(folder, **options)
    sample, noise, other, _ = given
    return sample, noise, other, sample.settings


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def test_validate__runs_on_the_data_and_on_the_control(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, noise, other, _ = given_to_checks(
        copied, monkeypatch, threads=1, thorough=True
    )
    assert sample.halves == (("data", 2, 1), ("data", 3, 1))
    assert noise.halves == (("control", 2, 1), ("control", 3, 1))
    for each in (sample, noise):
        assert tuple(each.runs[name] for name in HALVES) == each.halves
    assert other == ("data", 0, 1)


@pytest.mark.parametrize("start", ["random", "moments"])
def test_control__of_a_brief_validation(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half of noise, to the degree of the data's run, in ten iterations a stage."""
    told: list[Settings] = []

    def take(journal: Any, parts: Any, settings: Settings, *_: object) -> None:
        told.append(settings)
        journal.runs.update(parts)

    monkeypatch.setattr(algorithm, "run_all", take)
    settings = Settings(size=SIZE, start=start)
    last = len(settings.search)  # the march ended after its first stage
    noise: Any = ("first", "second")
    data: Any = SimpleNamespace(runs={"half1": SimpleNamespace(stage=last)})
    means = None, no_progress
    sample: Any = algorithm._Work(settings, *means, False, False).control(noise, data)
    assert sample.runs == {"half1": "first"}
    brief = sample.settings
    sample = algorithm._Work(settings, *means, True, False).control(noise, data)
    assert sample.runs == {"half1": "first", "half2": "second"}
    whole = sample.settings
    assert sample.halves == noise
    assert told == [brief, whole]
    assert {settings.start for settings in told} == {"random"}
    assert [stage.ell_max for stage in brief.march] == [4]
    assert [stage.n_iterations for stage in brief.march] == [10]
    assert brief.search == whole.search
    assert whole == settings.changed(start="random")


def test_checks__ask_all_data_where_a_part_leaves_doubt() -> None:
    """A part is asked first, and one map of the control will do."""

    def halves(evidence: float) -> Any:
        return (Opinions(dict.fromkeys((1.0, 2.0, 3.0), evidence), 400),) * 2

    noise = checks.Sample(
        halves(0.2), {"half1": runs_of_maps(3.0, 3.0)["half1"]}, SETTINGS
    )
    for lead, n_asked in ((0.05, 1), (0.004, 2)):
        data = checks.Sample(halves(0.2 + lead), runs_of_maps(1.0, 2.0), SETTINGS)
        told: list[tuple[str, float]] = []
        found = checks._data_are_ahead(
            data, noise, lambda *step, told=told: told.append(step), False
        )
        assert told.count(("asking the data", 0.0)) == n_asked
        assert found[0].passed is (lead > 0.01)


def test_validate__works_with_the_means_of_the_run(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads and memory beside the maps count, unless others are given."""
    beside = copied / "settings.toml"
    beside.write_text(f"{beside.read_text()}threads = 3\nmax_memory = 2.5\n")
    means: dict[str, Any] = {"thorough": True}
    sample, noise, other, settings = given_to_checks(copied, monkeypatch, **means)
    assert (settings.threads, settings.max_memory) == (3, 2.5)
    parts = (*sample.halves, *noise.halves, other)
    assert {threads for *_, threads in parts} == {3}
    *_, settings = given_to_checks(
        copied, monkeypatch, threads=1, max_memory=3.5, **means
    )
    assert (settings.threads, settings.max_memory) == (1, 3.5)
    beside.write_text(beside.read_text().replace("2.5", "0.001"))
    assert refusal(validate, copied).startswith("max_memory: expected at least ")
    given_to_checks(copied, monkeypatch, max_memory=3.5, **means)


def test_validate__refuses_too_little_memory(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(validate, run, max_memory=1e-3)
    figures = r"at least [\d.]+ GB \(program [\d.]+, patches [\d.]+, .*\)"
    found = "found 0.001 GB"
    assert re.fullmatch(rf"max_memory: expected {figures}, {found}", line)
    assert cli.main(["validate", str(run), "--max-memory", "0.001"]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"--max-memory: expected {figures}, {found}", shown)


@pytest.mark.parametrize("means", [{"threads": 0}, {"max_memory": 0.0}])
def test_validate__takes_no_zero_for_left_out(run: Path, means: dict[str, Any]) -> None:
    (name,) = means
    assert refusal(validate, run, **means).startswith(f"{name}: expected ")
