"""Volumes from whatever describes one: a map, an atomic model or the phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbasaem.aliases import PathLike
from numbasaem.errors import expected, warn
from numbasaem.volume.phantom import shepp_logan

from .mrc import read_volume

PHANTOM = "shepp-logan"
"""Name that stands for the phantom."""
MAP_SUFFIXES = tuple(
    f".{kind}{packed}"
    for packed in ("", ".gz", ".bz2")
    for kind in ("mrc", "map", "ccp4")
)
MODEL_SUFFIXES = tuple(
    f".{kind}{packed}" for packed in ("", ".gz") for kind in ("pdb", "ent", "cif")
)

FINEST_RESOLUTION = 5.0
"""Resolution, angstrom, that is drawn unless a coarser one is asked for."""
VOXELS_PER_RESOLUTION = 0.35
"""Length of a voxel in units of the resolution.

At Nyquist the Gaussian of an atom has then fallen to a seventh, and its scattering
factor falls besides.
"""
DEVIATION_PER_RESOLUTION = 1 / (np.pi * np.sqrt(2))
"""Deviation of the Gaussian that falls to 1/e at the frequency of the resolution."""
MARGIN_DEVIATIONS = 2.0
"""Number of deviations of an outermost atom that must lie inside the ball."""


def load_volume(
    source: PathLike, size: int
) -> tuple[NDArray[np.floating], float | None]:
    """Load the volume that a name stands for, as finely as the source has it.

    Parameters
    ----------
    source : str or path-like
        ``shepp-logan``, a map (``.mrc``, ``.map``, ``.ccp4``, also with ``.gz`` or
        ``.bz2``) or an atomic model (``.pdb``, ``.ent``, ``.cif``, also with ``.gz``;
        see :func:`density_from_model`).
    size : int
        Number of voxels per axis that is needed. The phantom is sampled at this size;
        a model is sampled at least as finely; a map must have that many.

    Returns
    -------
    volume : float64 or float32, shape (n, n, n), n >= size
        ``volume[z, y, x]``, centre at index ``n // 2``.
    voxel_size : float or None
        Angstrom per voxel; None for the phantom and for a map that does not say.

    Raises
    ------
    InputError
        If the source is of another kind, cannot be read, or is too small.
    """
    if str(source) == PHANTOM:
        return shepp_logan(size), None
    name = Path(source).name.lower()
    if name.endswith(MODEL_SUFFIXES):
        model = density_from_model(source)
        return model if len(model[0]) >= size else density_from_model(source, size)
    if not name.endswith(MAP_SUFFIXES):
        kinds = ", ".join((PHANTOM, *MAP_SUFFIXES, *MODEL_SUFFIXES))
        raise expected(source, f"one of {kinds}", f"the name {name}")
    volume, voxel_size = read_volume(source)
    if len(volume) < size:
        wanted = f"a volume of at least {size} voxels per axis"
        raise expected(source, wanted, len(volume))
    return volume, voxel_size


def density_from_model(
    path: PathLike,
    size: int | None = None,
    voxel_size: float | None = None,
    resolution: float | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Compute the scattering density of an atomic model.

    Every atom of the file's first model is drawn with its electron scattering factor,
    weighted by its occupancy (so alternate conformers share one atom; where all are 0,
    as docking programs leave them, each counts as 1) and blurred by a Gaussian that
    falls to 1/e at the frequency ``1 / resolution``, in place of its own displacement
    factor. Waters are left out; ions and ligands are kept; hydrogens
    are not added. The centre of mass is at index ``size // 2``, and every atom with two
    deviations of its blur lies in the ball of ``size // 2`` voxels.

    Parameters
    ----------
    path : path-like
        A ``.pdb``, ``.ent`` or ``.cif`` (mmCIF) file, gzip-compressed or not.
    size : int, optional
        Voxels per axis; by default the fewest that hold the model, an odd number.
    voxel_size : float, optional
        Angstrom; by default the finest at which `size` voxels hold the model, or 0.35
        of the resolution where `size` is not given either.
    resolution : float, optional
        Angstrom; by default 5, or what `voxel_size` can carry where that is coarser.

    Returns
    -------
    volume : float32, shape (size, size, size)
        Density in Å⁻² (scattering length per volume), ``volume[z, y, x]``.
    voxel_size : float
        Angstrom per voxel.

    Raises
    ------
    InputError
        If the file holds no model or occupancies below 0, or the model does not fit
        what was asked for.

    Warns
    -----
    RunWarning
        If occupancies are 0.
    """
    lengths = (("size", size), ("voxel_size", voxel_size), ("resolution", resolution))
    for name, value in lengths:
        if value is not None and not 0 < value < np.inf:
            raise expected(name, "a positive number", value)
    if size is not None and size < 5:
        raise expected("size", "at least 5 voxels", size)
    model = _model(path)
    _mend_occupancies(path, model)
    positions, masses = _atoms(model)
    if not masses.sum() > 0:
        raise expected(path, "atoms that are not water", "none")
    centre = masses @ positions / masses.sum()
    extent = float(np.linalg.norm(positions - centre, axis=1).max())
    size, voxel_size, resolution = _box(extent, size, voxel_size, resolution)
    deviation = DEVIATION_PER_RESOLUTION * resolution
    reach = extent + MARGIN_DEVIATIONS * deviation
    if reach > size // 2 * voxel_size * (1 + 1e-9):
        wanted = f"a model within {size // 2 * voxel_size:.1f} angstrom of its centre"
        raise expected(path, wanted, f"{reach:.1f} angstrom with its blur")
    shift = size // 2 * voxel_size - centre
    return _drawn(model, positions + shift, size, voxel_size, deviation), voxel_size


def _box(
    extent: float, size: int | None, voxel_size: float | None, resolution: float | None
) -> tuple[int, float, float]:
    """Fill in what was not asked for."""
    margin = MARGIN_DEVIATIONS * DEVIATION_PER_RESOLUTION
    if size is not None and voxel_size is None:
        if resolution is None:
            per_voxel = margin / VOXELS_PER_RESOLUTION
            voxel_size = max(
                (extent + margin * FINEST_RESOLUTION) / (size // 2),
                extent / max(size // 2 - per_voxel, 0.5),
            )
        else:
            voxel_size = (extent + margin * resolution) / (size // 2)
    if resolution is None:
        carried = 0.0 if voxel_size is None else voxel_size / VOXELS_PER_RESOLUTION
        resolution = max(FINEST_RESOLUTION, carried)
    if voxel_size is None:
        voxel_size = VOXELS_PER_RESOLUTION * resolution
    if size is None:
        size = 2 * max(int(np.ceil((extent + margin * resolution) / voxel_size)), 2) + 1
    if resolution < 2 * voxel_size:
        wanted = f"a resolution of at least two voxels, {2 * voxel_size:.4g} angstrom"
        raise expected("resolution", wanted, resolution)
    return size, voxel_size, resolution


def _model(path: PathLike) -> Any:
    """First model of a file, without its waters."""
    import gemmi

    place = Path(path)
    if place.is_dir() or not place.exists():
        found = "a folder" if place.is_dir() else "no such file"
        raise expected(path, "an atomic model", found)
    try:
        structure = gemmi.read_structure(str(place))
        structure.setup_entities()
        structure.remove_waters()
        return structure[0]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        found = str(error) or "no model"
        raise expected(path, "an atomic model in PDB or mmCIF", found) from error


def _mend_occupancies(path: PathLike, model: Any) -> None:
    """Take atoms for there where the file states of none that it is."""
    atoms = [entry.atom for entry in model.all()]
    for atom in atoms:
        if not atom.occ >= 0:
            raise expected(path, "occupancies of at least 0", f"{atom.occ:g}")
    absent = [atom for atom in atoms if atom.occ == 0]
    if not absent:
        return
    if len(absent) < len(atoms):
        n_absent = f"{len(absent)} of {len(atoms)} atoms"
        warn(f"{path}: {n_absent} are not drawn, for their occupancy is 0")
        return
    warn(f"{path}: all occupancies are 0; every atom is drawn as with 1")
    for atom in atoms:
        atom.occ = 1.0


def _atoms(model: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (n, 3) in angstrom, x y z, and masses times occupancies (n,)."""
    atoms = [entry.atom for entry in model.all()]
    positions = np.array([atom.pos.tolist() for atom in atoms]).reshape(-1, 3)
    masses = np.array([atom.element.weight * atom.occ for atom in atoms])
    return positions, masses


def _drawn(
    model: Any,
    positions: NDArray[np.float64],
    size: int,
    voxel_size: float,
    deviation: float,
) -> NDArray[np.float32]:
    """Density of a model whose atoms are moved and blurred."""
    import gemmi

    for entry, position in zip(model.all(), positions, strict=True):
        entry.atom.pos = gemmi.Position(*position)
        entry.atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
        entry.atom.b_iso = 8 * np.pi**2 * deviation**2
    calculator = gemmi.DensityCalculatorE()
    # The cell is periodic: density that leaves through one face returns through the
    # other. So a wider box is drawn and cropped.
    reach = max(calculator.estimate_radius(entry.atom) for entry in model.all())
    margin = int(np.ceil(reach / voxel_size)) + 1
    width = size + 2 * margin
    edge = width * voxel_size
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.set_size(width, width, width)
    calculator.add_model_density_to_grid(model)
    density = np.roll(calculator.grid.array, margin, axis=(0, 1, 2))
    inside = slice(margin, margin + size)
    return np.ascontiguousarray(density[inside, inside, inside].transpose(2, 1, 0))
