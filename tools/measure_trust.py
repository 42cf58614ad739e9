"""Reconstruct and validate noise of many kinds, and molecules of falling strength.

    python tools/measure_trust.py --kinds white jpeg molecule-1 --seeds 0 1 2

Every run is a small reconstruction at L = 7 from random starts and a validation of it;
those of the kind `demonstration` have the molecules, pixels and settings of
`numbasaem demo`, and take minutes. A line is printed for each, and kept in the file
that `--out` names: runs whose lines are there already are not done again. The last
lines count how many are supported; of noise none should be. A mixture of molecules is
no noise: its particles are there, and their average foretells others of them. It is
counted by itself, to show what the verdict does not ask.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from problems import timed
from scipy import fft
from scipy.ndimage import convolve

from numbasaem import Settings, ViewGrid, VolumeBasis, reconstruct, simulate, validate
from numbasaem.errors import NumbasaemError, RunWarning
from numbasaem.io.mrc import write_micrograph
from numbasaem.picking.algorithm import suppress_neighbours
from numbasaem.projection.operator import ProjectionOperator
from numbasaem.simulation.demo import SIMULATION, demonstration_volume
from numbasaem.volume.phantom import folded_chain

Image = NDArray[np.floating]
Maker = Callable[[np.random.Generator, int], list[Image]]

SIZE = 7
SIDE = 280
"""Side of a micrograph at L = 7, pixels, unless `--pixels` says otherwise."""
SETTINGS = Settings(
    size=SIZE, ell_max=(2, 4), iterations=(6, 8), starts=2, batch_fraction=0.5
)
"""Settings of all runs at L = 7, but for their seed."""
RATIOS = (3.5, 1.0, 0.5, 0.25, 0.1)
"""Signal-to-noise ratios of the molecules."""
_BLOCK = 8
"""Side of the blocks of JPEG, pixels."""
_EXPOSURES = 10
"""Number of exposures of windows that a template picked: they look like particles, and
it takes many to tell that they are alike in strength.
"""


def white(generator: np.random.Generator, side: int) -> list[Image]:
    """White noise of variance 1."""
    return [generator.standard_normal((side, side))]


def filtered(generator: np.random.Generator, side: int, response: Image) -> Image:
    """White noise of which each frequency is multiplied by the response."""
    (noise,) = white(generator, side)
    result = fft.irfft2(fft.rfft2(noise) * response, noise.shape)
    return np.asarray(result / result.std())


def frequencies(side: int) -> NDArray[np.float64]:
    """Length of each frequency of a half spectrum, cycles per pixel."""
    return np.hypot(fft.fftfreq(side)[:, np.newaxis], fft.rfftfreq(side))


def coloured(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise that is strongest at low frequencies, as that of ice is."""
    return [filtered(generator, side, 1 / (0.05 + frequencies(side)))]


def ice_rings(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise that is stronger in a ring of frequencies, as crystals make it."""
    ring = np.exp(-(((frequencies(side) - 0.27) / 0.015) ** 2))
    return [filtered(generator, side, 1 + 4 * ring)]


def gain(generator: np.random.Generator, side: int) -> list[Image]:
    """Two exposures that share a detector's uncorrected gain."""
    columns = 1 + 0.05 * generator.standard_normal(side)
    pixels = 1 + 0.05 * generator.standard_normal((side, side))
    level = 5 + white(generator, side)[0], 5 + white(generator, side)[0]
    return [exposure * columns * pixels for exposure in level]


def gradients(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise on ice that is thicker and noisier to one side."""
    ramp = np.linspace(0, 1, side)
    (noise,) = white(generator, side)
    return [(1 + ramp) * noise + 4 * ramp + ramp[:, np.newaxis] ** 2]


def hot_pixels(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise in which one pixel in a thousand is far too bright."""
    hot = generator.random((side, side)) < 1e-3
    return [white(generator, side)[0] + 20 * hot]


def detector(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise that neighbouring pixels share, as charge does."""
    shared = np.array([[0.03, 0.1, 0.03], [0.1, 1.0, 0.1], [0.03, 0.1, 0.03]])
    return [convolve(white(generator, side)[0], shared, mode="wrap")]


def jpeg(generator: np.random.Generator, side: int) -> list[Image]:
    """Noise of which each block of pixels was rounded in its cosine transform."""
    (noise,) = white(generator, -(-side // _BLOCK) * _BLOCK)
    n_blocks = len(noise) // _BLOCK
    blocks = noise.reshape(n_blocks, _BLOCK, n_blocks, _BLOCK)
    waves = fft.dctn(blocks, axes=(1, 3), norm="ortho")
    coarseness = 0.5 + 0.25 * np.add.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    steps = coarseness[:, np.newaxis, :]
    rounded = fft.idctn(steps * np.rint(waves / steps), axes=(1, 3), norm="ortho")
    return [np.asarray(rounded).reshape(noise.shape)[:side, :side]]


def duplicates(generator: np.random.Generator, side: int) -> list[Image]:
    """The same noise again: as it is, in other units, and shifted."""
    (noise,) = white(generator, side + 3)
    whole = noise[:side, :side]
    return [whole, 3 * whole[::-1] + 1, noise[3:, 2 : side + 2]]


def mixture(generator: np.random.Generator, side: int) -> list[Image]:
    """Particles each of which is another molecule: a map could be their average."""
    basis = VolumeBasis(SIZE, 4)
    operator = ProjectionOperator(basis, ViewGrid(48).rotations)
    pixels = np.zeros((side, side))
    corners = range(0, side - SIZE + 1, 2 * SIZE)
    for row, column in product(corners, corners):
        chain = folded_chain(SIZE, seed=int(generator.integers(2**31)))
        images = operator.project(basis.expand(chain))
        image = images[generator.integers(len(images))]
        y, x = np.add((row, column), generator.integers(SIZE, size=2))
        box = pixels[y : y + SIZE, x : x + SIZE]
        box += image[: box.shape[0], : box.shape[1]]
    energy = np.mean(pixels**2) * 4
    return [pixels + np.sqrt(energy) * white(generator, side)[0]]


def einstein(generator: np.random.Generator, side: int) -> list[Image]:
    """Windows of noise that a template picked, side by side in several exposures."""
    basis = VolumeBasis(SIZE, 4)
    volume = folded_chain(SIZE, seed=int(generator.integers(2**31)))
    images = basis.project(basis.expand(volume), ViewGrid(48).rotations)
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= np.linalg.norm(images, axis=(1, 2), keepdims=True)
    return [montage(generator, side, images) for _ in range(_EXPOSURES)]


def montage(generator: np.random.Generator, side: int, images: Image) -> Image:
    """Windows of noise that are most like one of the images, in random order."""
    noise = white(generator, 6 * side)[0].astype(np.float32)
    spectrum, shape = fft.rfft2(noise), noise.shape
    best = np.full(shape, -np.inf, np.float32)
    for image in images.astype(np.float32):
        likeness = fft.irfft2(spectrum * fft.rfft2(image, shape).conj(), shape)
        np.maximum(best, likeness, out=best)
    best = best[: 1 - SIZE, : 1 - SIZE]
    n_across = side // SIZE
    likeliest = np.argsort(-best, axis=None)[: 8 * n_across**2]
    scores = best.ravel()[likeliest].astype(np.float64)
    corners = np.stack(np.unravel_index(likeliest, best.shape), axis=1)
    apart = suppress_neighbours(corners, scores, SIZE)[: n_across**2]
    (exposure,) = white(generator, side)
    places = generator.permutation(list(product(range(n_across), repeat=2)))
    for (row, column), (y, x) in zip(places, corners[apart], strict=False):
        target = exposure[row * SIZE :, column * SIZE :]
        target[:SIZE, :SIZE] = noise[y : y + SIZE, x : x + SIZE]
    return exposure


def molecule(generator: np.random.Generator, side: int, snr: float) -> list[Image]:
    """Particles of one molecule in white noise."""
    seed = int(generator.integers(2**31))
    volume = folded_chain(SIZE, seed=seed)
    sample = simulate(volume, size=SIZE, pixels=side, snr=snr, ell_max=4, seed=seed)
    return list(sample.micrographs)


def demonstration(generator: np.random.Generator, side: int) -> list[Image]:
    """Particles of another molecule of the demonstration's kind."""
    seed = int(generator.integers(2**31))
    plan = replace(SIMULATION, pixels=side, seed=seed)
    return list(simulate(demonstration_volume(seed), plan).micrographs)


NOISE: dict[str, Maker] = {
    "white": white,
    "coloured": coloured,
    "gain": gain,
    "ice-rings": ice_rings,
    "gradients": gradients,
    "hot-pixels": hot_pixels,
    "detector": detector,
    "jpeg": jpeg,
    "duplicates": duplicates,
    "einstein": einstein,
}
"""Functions that make micrographs without a molecule, by kind."""
MOLECULES: dict[str, Maker] = {
    f"molecule-{snr:g}": partial(molecule, snr=snr) for snr in RATIOS
}
"""Functions that make micrographs of a molecule, by kind."""
KINDS = NOISE | MOLECULES | {"mixture": mixture, "demonstration": demonstration}
"""Functions that make micrographs, by kind."""


def verdict_on(kind: str, seed: int, side: int) -> str:
    """Verdict of a validation of a run on such micrographs."""
    stream = np.random.SeedSequence([seed, list(KINDS).index(kind)])
    micrographs = KINDS[kind](np.random.default_rng(stream), side)
    settings = Settings(size=SIMULATION.size) if kind == "demonstration" else SETTINGS
    with TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        folder = Path(name)
        paths = [folder / f"{number}.mrc" for number in range(len(micrographs))]
        for path, pixels in zip(paths, micrographs, strict=True):
            write_micrograph(path, pixels, 1.0)
        try:
            reconstruct(paths, settings.changed(seed=seed), out=folder / "run")
            return validate(folder / "run").verdict
        except NumbasaemError as error:
            return f"refused, {type(error).__name__}"


def main() -> None:
    """Print a line for each run, and how many are supported."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--pixels", type=int, default=SIDE, help="side at L = 7")
    parser.add_argument("--out", type=Path, default=Path("trust.md"))
    arguments = parser.parse_args()
    kept = arguments.out.read_text("utf-8") if arguments.out.exists() else ""
    rows = kept.splitlines()
    for seed, kind in product(arguments.seeds, arguments.kinds):
        side = SIMULATION.pixels if kind == "demonstration" else arguments.pixels
        start = f"| {seed} | {kind} | {side} |"
        row = next((row for row in rows if row.startswith(start)), None)
        if row is None:
            work = partial(verdict_on, kind, seed, side)
            verdict, seconds = timed(work)
            row = f"{start} {verdict} | {seconds:.0f} |"
            rows.append(row)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(f"{row}\n")
        print(row, flush=True)
    print_counts(rows)


def print_counts(rows: list[str]) -> None:
    """Print how many runs of each kind, and of all noise, are supported."""
    done: Counter[str] = Counter()
    supported: Counter[str] = Counter()
    for row in rows:
        _, kind, _, verdict, _ = (cell.strip() for cell in row.strip("|").split("|"))
        names = [kind, "all noise"] if kind in NOISE else [kind]
        done.update(names)
        supported.update(names if verdict == "supported" else [])
    for name, n_done in done.items():
        print(f"{name}: {supported[name]} of {n_done} supported")


if __name__ == "__main__":
    main()
