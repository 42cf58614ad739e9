"""The lens, the colour of the noise, and what projections look like through both."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft, signal

from numbasaem import (
    InputError,
    Settings,
    VolumeBasis,
    expectation,
    fourier_shell_correlation,
    reconstruct,
    rotation_grid,
    simulate,
)
from numbasaem.assessment.alignment import align
from numbasaem.geometry.grids import disc
from numbasaem.io.micrograph_tables import (
    read_micrograph_table,
    write_micrograph_table,
)
from numbasaem.micrographs.correction import flip_phases_and_whiten
from numbasaem.micrographs.ctf import ContrastTransferFunction
from numbasaem.micrographs.noise_spectrum import RadialSpectrum
from numbasaem.micrographs.optics_groups import OpticsGroups, group_point_spreads
from numbasaem.micrographs.reading import file_of_source, list_inputs, source_of_file
from numbasaem.micrographs.sources import MicrographFile, list_micrographs
from numbasaem.observations.image_statistics import ImageStatistics
from numbasaem.observations.patch_data import Patches, load_patches
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.projection.point_spread import image_filter, seen_through
from numbasaem.reconstruction.driver import Callbacks, run_all
from numbasaem.reconstruction.journal import Journal, refuse_other_sources
from numbasaem.simulation.files import simulate_to_folder
from numbasaem.simulation.settings import SimulationSettings
from numbasaem.volume.phantom import folded_chain
from tests.helpers import hypotheses_in, noise

SIZE, PIXEL_SIZE = 7, 5.0
CTF = ContrastTransferFunction(15_000.0, 14_000.0, 30.0)


def white(side: int = 256) -> NDArray[np.float32]:
    return noise(side, side, seed=5)


def nothing_excluded(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.zeros(pixels.shape, bool)


def through(
    image: NDArray[np.floating], ctf: ContrastTransferFunction
) -> NDArray[np.float32]:
    """Image of a lens, everywhere on a periodic micrograph."""
    y, x = (fft.fftfreq(n, PIXEL_SIZE) for n in image.shape)
    seen = fft.ifft2(fft.fft2(image) * ctf(y[:, None], x))
    return seen.real.astype(np.float32)


def spreads() -> NDArray[np.float64]:
    pixels = white()
    ctfs = (CTF, ContrastTransferFunction(8_000.0, 8_000.0))
    return np.array(
        [
            flip_phases_and_whiten(
                pixels, nothing_excluded(pixels), SIZE, (ctf, PIXEL_SIZE)
            )[1].values
            for ctf in ctfs
        ]
    )


def test_ctf__agrees_with_aspire() -> None:
    """Signs, units and axes are those of another program that follows RELION."""
    filters = pytest.importorskip("aspire.operators")
    theirs = filters.CTFFilter(
        voltage=300,
        defocus_u=15_000,
        defocus_v=14_000,
        defocus_ang=np.radians(30),
        Cs=2.7,
        alpha=0.1,
    )
    side = 32
    omega = 2 * np.pi * fft.fftfreq(side)
    x, y = np.meshgrid(omega, omega)
    expected = theirs.evaluate(np.stack([x.ravel(), y.ravel()]), pixel_size=PIXEL_SIZE)
    frequency = fft.fftfreq(side, PIXEL_SIZE)
    found = CTF(frequency[:, None], frequency)
    np.testing.assert_allclose(np.abs(found).ravel(), np.abs(expected), atol=2e-3)


def test_ctf__first_zero_and_envelope() -> None:
    """The phase is pi where defocus alone says so, and the envelope halves at its B."""
    ctf = ContrastTransferFunction(
        10_000, 10_000, spherical_aberration=0, amplitude_contrast=0
    )
    assert abs(float(ctf(0, (10_000 * ctf.wavelength) ** -0.5))) < 1e-12
    damped = ContrastTransferFunction(10_000, 10_000, b_factor=4 * np.log(2) / 0.05**2)
    sharp = ContrastTransferFunction(10_000, 10_000)
    assert float(damped(0.03, 0.04)) == pytest.approx(float(sharp(0.03, 0.04)) / 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("voltage", 0.0), ("defocus_u", np.nan), ("amplitude_contrast", 1.5)],
)
def test_ctf__refuses(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        ContrastTransferFunction(**{"defocus_u": 1e4, "defocus_v": 1e4, field: value})


def test_correction__particle_appears_as_its_point_spread_says(
    generator: np.random.Generator,
) -> None:
    """A particle seen through the lens, phases flipped, is the filtered particle."""
    particle = np.zeros((256, 256), np.float32)
    image = generator.standard_normal((SIZE, SIZE))
    box = slice(100, 100 + SIZE), slice(60, 60 + SIZE)
    particle[box] = image
    seen = through(particle, CTF)
    pixels, spread = flip_phases_and_whiten(
        seen, nothing_excluded(seen), SIZE, (CTF, PIXEL_SIZE)
    )
    there = seen_through(image[None], spread.values)[0]
    # a pixel sums 49 values of the spread, each right to 1.3e-4 (root mean square)
    bound = 6e-4 * float(np.linalg.norm(image))
    np.testing.assert_allclose(pixels[box], there, atol=bound)
    inside = np.sum(pixels[box] ** 2) / np.sum(pixels.astype(np.float64) ** 2)
    raw = np.sum(seen[box] ** 2) / np.sum(seen.astype(np.float64) ** 2)
    assert inside > 1.3 * raw  # fringes come back into the box
    assert 0.02 < spread.share_outside < 0.4


def test_correction__flipping_leaves_noise_as_it_is() -> None:
    pixels = white()
    flipped, _ = flip_phases_and_whiten(
        pixels, nothing_excluded(pixels), SIZE, (CTF, PIXEL_SIZE)
    )
    before, after = (np.abs(fft.rfft2(one)) for one in (pixels, flipped))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-2)


def test_whitening__makes_coloured_noise_white() -> None:
    y, x = fft.fftfreq(256)[:, None], fft.rfftfreq(256)
    colour = 1 / (1 + (np.hypot(y, x) / 0.1) ** 2)
    pixels = (3 * fft.irfft2(fft.rfft2(white()) * colour)).astype(np.float32)
    found, spread = flip_phases_and_whiten(
        pixels, nothing_excluded(pixels), SIZE, None, whiten=True
    )
    assert found.std() == pytest.approx(pixels.std(), rel=1e-5)
    shells = RadialSpectrum(found, nothing_excluded(found))
    frequencies = np.linspace(0.02, 0.5, 20)
    power = shells(frequencies, np.zeros(20))
    before = RadialSpectrum(pixels, nothing_excluded(pixels))(frequencies, np.zeros(20))
    assert before.max() / before.min() > 9
    assert power.max() / power.min() < 1.3
    assert spread.values[SIZE - 1, SIZE - 1] == spread.values.max()


def test_whitening__particle_appears_as_its_point_spread_says(
    generator: np.random.Generator,
) -> None:
    """A particle in coloured noise goes through the filter that makes it white."""
    y, x = fft.fftfreq(256)[:, None], fft.rfftfreq(256)
    colour = 1 / (1 + (np.hypot(y, x) / 0.1) ** 2)
    empty = fft.irfft2(fft.rfft2(white()) * colour).astype(np.float32)
    empty *= 10 / empty.std()  # the particle hardly adds to its standard deviation
    image = generator.standard_normal((SIZE, SIZE))
    box = slice(100, 100 + SIZE), slice(60, 60 + SIZE)
    occupied = empty.copy()
    occupied[box] += image.astype(np.float32)
    excluded = nothing_excluded(empty)  # so that both have the same spectrum
    excluded[box] = True
    (after, spread), (before, _) = (
        flip_phases_and_whiten(pixels, excluded, SIZE, whiten=True)
        for pixels in (occupied, empty)
    )
    there = seen_through(image[None], spread.values)[0]
    bound = 0.02 * float(np.abs(there).max())
    np.testing.assert_allclose((after - before)[box], there, atol=bound)


@pytest.mark.parametrize("size", [SIZE, 12])
def test_share_outside__is_the_energy_that_leaves_the_box(size: int) -> None:
    """Of a particle of independent pixels, whose energies add up, on a larger grid."""
    pixels = white()
    _, spread = flip_phases_and_whiten(
        pixels, nothing_excluded(pixels), size, (CTF, PIXEL_SIZE)
    )
    side, corner = 512, 250
    frequency = fft.fftfreq(side, PIXEL_SIZE)
    contrast = np.abs(CTF(frequency[:, None], frequency))
    box = slice(corner, corner + size), slice(corner, corner + size)
    inside = whole = 0.0
    for row, column in np.argwhere(disc(size)):
        micrograph = np.zeros((side, side))
        micrograph[corner + row, corner + column] = 1
        seen = fft.ifft2(fft.fft2(micrograph) * contrast).real
        inside += np.sum(seen[box] ** 2)
        whole += np.sum(seen**2)
    assert spread.share_outside == pytest.approx(1 - inside / whole, rel=0.01)


def test_whitening__leaves_what_has_no_noise() -> None:
    pixels = np.zeros((130, 130), np.float32)
    pixels[100:] = 1
    excluded = pixels > 0
    result, _ = flip_phases_and_whiten(pixels, excluded, SIZE, whiten=True)
    np.testing.assert_allclose(result, pixels, atol=1e-5)


def test_correction__nothing_comes_through() -> None:
    """Without amplitude contrast, under an envelope that leaves nothing."""
    nothing = replace(CTF, amplitude_contrast=0.0, b_factor=1e12)
    pixels = white(64)
    _, spread = flip_phases_and_whiten(
        pixels, nothing_excluded(pixels), SIZE, (nothing, PIXEL_SIZE)
    )
    assert spread.share_outside == 1


def test_image_filter__is_a_cropped_convolution(generator: np.random.Generator) -> None:
    spread = generator.standard_normal((2 * SIZE - 1, 2 * SIZE - 1))
    image = generator.standard_normal((SIZE, SIZE))
    found = (image_filter(spread) @ image.ravel()).reshape(SIZE, SIZE)
    whole = signal.convolve2d(image, spread)
    middle = slice(SIZE - 1, 2 * SIZE - 1)
    np.testing.assert_allclose(found, whole[middle, middle], atol=1e-12)


def test_groups__put_alike_micrographs_together() -> None:
    first, second = spreads()
    groups = group_point_spreads([first, second, 1.001 * first])
    assert groups.group.tolist() == [0, 1, 0]
    np.testing.assert_allclose(groups.point_spreads[0], 1.0005 * first)
    many = [first + 0.2 * n * second for n in range(60)]
    assert len(group_point_spreads(many).point_spreads) <= 16


def test_operator__adjoint_and_matrices_of_groups(
    generator: np.random.Generator,
) -> None:
    basis, rotations = VolumeBasis(SIZE, 3), rotation_grid(10)
    operator = ProjectionOperator(basis, rotations, spreads())
    x = generator.standard_normal(basis.n_coefficients)
    images = operator.project(x)
    sharp = ProjectionOperator(basis, rotations).project(x)
    expected = np.concatenate([seen_through(sharp, spread) for spread in spreads()])
    np.testing.assert_allclose(images, expected, atol=1e-12)
    other = generator.standard_normal(images.shape)
    assert np.vdot(images, other) == pytest.approx(np.vdot(x, operator.adjoint(other)))
    for group in range(2):
        matrices = operator.matrices(group=group)
        views = np.einsum("kpm,m->kp", matrices, x).reshape(-1, SIZE, SIZE)
        np.testing.assert_allclose(views, np.split(images, 2)[group], atol=1e-12)


def test_statistics__of_groups_are_those_of_each_alone(
    generator: np.random.Generator,
) -> None:
    """Every patch is compared with the volume as its own micrograph shows it."""
    basis, rotations = VolumeBasis(SIZE, 3), rotation_grid(10)
    operator = ProjectionOperator(basis, rotations, spreads())
    images = operator.project(generator.standard_normal(basis.n_coefficients))
    patches = generator.standard_normal((40, SIZE, SIZE)).astype(np.float32)
    group = generator.integers(0, 2, 40)
    prior = np.full((2 * SIZE, 2 * SIZE), (2 * SIZE) ** -2.0)
    data = Patches(patches, optics=OpticsGroups(spreads(), group))
    hypotheses = hypotheses_in(images, prior, 1.0, n_groups=2)
    found = data.expectation(np.arange(40), hypotheses)
    assert isinstance(found, ImageStatistics)
    alone = [
        expectation(patches[group == g], np.split(images, 2)[g], prior, 1.0)
        for g in range(2)
    ]
    for number, one in enumerate(alone):
        mine = np.split(found.weighted_patch, 2)[number]
        scale = np.abs(one.weighted_patch).max()
        np.testing.assert_allclose(mine, one.weighted_patch, atol=1e-5 * scale)
    likelihood = sum(one.log_likelihood for one in alone)
    assert found.log_likelihood == pytest.approx(likelihood, rel=1e-9)
    operators = [
        ProjectionOperator(basis, rotations, spread[None]) for spread in spreads()
    ]
    for name in ("normal_matrix", "right_side"):
        whole = getattr(found, name)(operator)
        expected = sum(
            getattr(one, name)(of_group)
            for one, of_group in zip(alone, operators, strict=True)
        )
        np.testing.assert_allclose(whole, expected, atol=1e-5 * np.abs(whole).max())


def two_defoci(folder: Path, snr: float = 10.0) -> Path:
    """Micrographs of two defoci; the folder of their list."""
    settings = SimulationSettings(
        size=SIZE,
        pixels=320,
        snr=snr,
        micrographs=2,
        ell_max=4,
        pixel_size=PIXEL_SIZE,
        defocus=(8_000, 20_000),
        seed=4,
    )
    simulate_to_folder(folder, folded_chain(SIZE), settings)
    return folder


def plan(**changes: object) -> Settings:
    return Settings(
        size=SIZE,
        model="patch",
        ell_max=(4,),
        iterations=(12,),
        rotations=120,
        batching="full",
        starts=3,
        halves=False,
    ).model_copy(update=changes)


@pytest.mark.filterwarnings("ignore:.*leaves its box:numbasaem.errors.RunWarning")
@pytest.mark.filterwarnings("ignore:nothing seen of:numbasaem.errors.RunWarning")
@pytest.mark.parametrize("model", ["patch", "window"])
def test_reconstruct__with_the_lens_is_better_than_without(
    tmp_path: Path, model: str
) -> None:
    place = two_defoci(tmp_path / "data")
    listed = [place / "micrographs.star"]
    truth = VolumeBasis(SIZE, 4)
    true = truth.evaluate(truth.expand(folded_chain(SIZE)))
    found = {
        ctf: align(reconstruct(listed, plan(ctf=ctf, model=model)).volume, true)
        for ctf in (True, False)
    }
    assert found[True].correlation > 0.9
    assert found[True].correlation > found[False].correlation + 0.05
    assert fourier_shell_correlation(found[True].volume, true)[1:3].min() > 0.8


@pytest.mark.filterwarnings("ignore:.*leaves its box:numbasaem.errors.RunWarning")
def test_likelihood__never_falls_with_the_lens(tmp_path: Path) -> None:
    """Full batch and plain steps: EM, whatever stands between molecule and pixels."""
    listed = [two_defoci(tmp_path / "data", snr=1.0) / "micrographs.star"]
    settings = plan(ctf=True, whiten=True, starts=1, over_relaxation=1.0)
    data = load_patches(list_inputs(listed), settings, lambda *_: None)
    assert data.optics is not None
    assert len(data.optics.point_spreads) == 2
    journal = Journal(None, False, {})
    silent = Callbacks(None, lambda *_: None)
    run_all(journal, {"full": data.part(None, None)}, settings, silent)
    rows = journal.runs["full"].history
    likelihoods = np.array([row.log_likelihood_per_patch for row in rows])
    assert np.diff(likelihoods).min() > -1e-5
    assert likelihoods[-1] > likelihoods[0] + 0.01


def test_list__keeps_the_microscope(tmp_path: Path) -> None:
    path = tmp_path / "micrographs.star"
    ctfs = [
        CTF,
        ContrastTransferFunction(9_000, 8_500, -20, phase_shift=90, b_factor=40),
    ]
    parameters = [asdict(ctf) for ctf in ctfs]
    write_micrograph_table(path, ["a.mrc", "b.mrc"], PIXEL_SIZE, parameters)
    table = read_micrograph_table(path)
    assert table.ctf_parameters == parameters
    write_micrograph_table(path, ["a.mrc"], PIXEL_SIZE)
    assert read_micrograph_table(path).ctf_parameters == ["no column rlnDefocusU"]


def test_list__names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "micrographs.star"
    write_micrograph_table(path, ["a.mrc"], PIXEL_SIZE, [asdict(CTF)])
    text = path.read_text()
    (tmp_path / "a.mrc").write_bytes(b"pixels")

    def fault(changed: str) -> str:
        path.write_text(changed)
        (file,) = list_micrographs([path]).files
        assert file.ctf is None
        return file.ctf_fault

    assert fault(text.replace("_rlnVoltage", "_rlnOther")) == "no column rlnVoltage"
    assert fault(re.sub(r"15000\S*", "nan", text)) == "rlnDefocusU nan in row 1"
    assert fault(re.sub(r"15000\S*", "far", text)) == "rlnDefocusU far in row 1"
    assert fault(re.sub(r"\b300\b\S*", "-300", text)) == "voltage -300.0"


def test_source__keeps_the_contrast_transfer_function(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(b"pixels")
    file = MicrographFile(tmp_path / "a.mrc", "a.mrc", ctf=CTF)
    source = source_of_file(file)
    assert file_of_source(source) == file
    refuse_other_sources(tmp_path / "run.h5", [source], [source_of_file(file)])
    other = source_of_file(replace(file, ctf=replace(CTF, defocus_u=9_000.0)))
    with pytest.raises(InputError, match=r"contrast transfer function that .* began"):
        refuse_other_sources(tmp_path / "run.h5", [source], [other])


def test_reconstruct__refuses_a_lens_that_it_does_not_know() -> None:
    pixels = simulate(folded_chain(SIZE), size=SIZE, pixels=96, snr=10, ell_max=4)
    with pytest.raises(InputError, match="defocus"):
        reconstruct(pixels.micrographs, plan(ctf=True))


def test_simulation__views_noise_and_lens() -> None:
    plain = SimulationSettings(size=SIZE, pixels=400, snr=0.5, ell_max=4, seed=1)
    sample = simulate(folded_chain(SIZE), plain, preferred=0.5)
    cosine = np.concatenate(sample.rotations)[:, 2, 2]
    share = np.mean(cosine > np.cos(np.radians(30)))
    assert abs(share - (0.5 + 0.5 * (1 - np.cos(np.radians(30))) / 2)) < 0.06
    np.testing.assert_allclose(np.linalg.det(sample.rotations[0]), 1)
    assert simulate(folded_chain(SIZE), plain).ctfs == []
    defocused = simulate(folded_chain(SIZE), plain, defocus=(9_000, 9_000))
    assert [ctf.defocus_u for ctf in defocused.ctfs] == [9_000]


def test_simulation__noise_like_a_micrograph(tmp_path: Path) -> None:
    from numbasaem.io.mrc import write_micrograph

    y, x = fft.fftfreq(256)[:, None], fft.rfftfreq(256)
    colour = 1 / (1 + (np.hypot(y, x) / 0.1) ** 2)
    measured = fft.irfft2(fft.rfft2(white()) * colour).astype(np.float32)
    write_micrograph(tmp_path / "a.mrc", measured, 1.0)
    sample = simulate(
        folded_chain(SIZE),
        size=SIZE,
        pixels=256,
        snr=0.001,
        ell_max=4,
        noise_like=tmp_path / "a.mrc",
    )
    (found,) = sample.micrographs
    assert found.var() == pytest.approx(sample.noise_variance, rel=0.1)
    frequencies = np.linspace(0.03, 0.5, 15)
    power = [
        RadialSpectrum(one / one.std(), nothing_excluded(one))(
            frequencies, np.zeros(15)
        )
        for one in (measured, found)
    ]
    np.testing.assert_allclose(power[0], power[1], rtol=0.35)
