"""Slow references: every compiled function's namesake, straight from its equation.

Nothing here is compiled or clever, and nothing here imports the package: each
function is the plainest loop that says what its namesake in `numbasaem.kernels`
has to compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg


def bessel_to_pswf(
    bessel: NDArray[np.float64],
    degree: NDArray[np.int64],
    radial_modes: NDArray[np.float64],
    angular_index: NDArray[np.int64],
    equator: NDArray[np.float64],
    node_weights: NDArray[np.float64],
    coupling: NDArray[np.float64],
) -> None:
    """Equation (15) by the plainest sums."""
    for row, ell in enumerate(degree):
        for mode, order in enumerate(angular_index):
            coupling[row, mode] = 0.0
            if order > ell or (ell + order) % 2:
                continue
            for k, weight in enumerate(node_weights):
                product = bessel[row, k] * radial_modes[mode, k]
                coupling[row, mode] += (
                    np.sqrt(2 * np.pi) * equator[ell, order] * product * weight
                )


def complex_patch_inner_product(
    patch: NDArray[np.float64],
    shift: tuple[int, int],
    beta_hat: dict[tuple[int, int], dict[int, NDArray[np.complex128]]],
    wigner: dict[int, NDArray[np.complex128]],
    psi: dict[int, NDArray[np.complex128]],
    indices: list[tuple[int, int, int]],
) -> NDArray[np.complex128]:
    """Equation (33) in the complex coefficients of (6): one value per (ell, m, s).

    `beta_hat[ell, s][N]` is an array over n, `wigner[ell][N + ell, m + ell]` the
    rotation matrix of the coefficients, `psi[N]` a stack (n, L, L) of sampled PSWFs.
    """
    size = len(patch)
    inner = {}
    for order, images in psi.items():
        inner[order] = np.zeros(len(images), dtype=complex)
        for n, image in enumerate(images):
            padded = np.zeros((2 * size, 2 * size), dtype=complex)
            padded[:size, :size] = image
            for i in range(size):
                for j in range(size):
                    row = (i + shift[0]) % (2 * size)
                    column = (j + shift[1]) % (2 * size)
                    inner[order][n] += patch[i, j] * padded[row, column]
    values = np.zeros(len(indices), dtype=complex)
    for position, (ell, m, s) in enumerate(indices):
        for order in range(-ell, ell + 1):
            for n, beta in enumerate(beta_hat[ell, s][order]):
                values[position] += (
                    beta * wigner[ell][order + ell, m + ell] * inner[order][n]
                )
    return values


def complex_shifted_gram(
    shift: tuple[int, int],
    size: int,
    beta_hat: dict[tuple[int, int], dict[int, NDArray[np.complex128]]],
    wigner: dict[int, NDArray[np.complex128]],
    psi: dict[int, NDArray[np.complex128]],
    indices: list[tuple[int, int, int]],
) -> NDArray[np.complex128]:
    """Equation (35) in complex coefficients, arguments as in (33).

    The sums over N, n are done first, pixel by pixel, which changes nothing.
    """
    visible = np.zeros((len(indices), size, size), dtype=complex)
    for position, (ell, m, s) in enumerate(indices):
        padded = np.zeros((2 * size, 2 * size), dtype=complex)
        for order in range(-ell, ell + 1):
            for beta, image in zip(beta_hat[ell, s][order], psi[order], strict=True):
                padded[:size, :size] += beta * wigner[ell][order + ell, m + ell] * image
        for i in range(size):
            for j in range(size):
                row = (i + shift[0]) % (2 * size)
                column = (j + shift[1]) % (2 * size)
                visible[position, i, j] = padded[row, column]
    gram = np.zeros((len(indices), len(indices)), dtype=complex)
    for first in range(len(indices)):
        for second in range(len(indices)):
            gram[first, second] = np.sum(visible[first] * visible[second])
    return gram


def shifted_view(
    image: NDArray[np.float64], shift: tuple[int, int]
) -> NDArray[np.float64]:
    """Equation (19), cropped to the patch, pixel by pixel."""
    size = len(image)
    padded = np.zeros((2 * size, 2 * size))
    padded[:size, :size] = image
    patch = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            row, column = (i + shift[0]) % (2 * size), (j + shift[1]) % (2 * size)
            patch[i, j] = padded[row, column]
    return patch


def displacements(size: int) -> list[tuple[int, int, int, int]]:
    """Every (u, v, s_y, s_x): place in a table of displacements, and its shift."""
    steps = [(u, (u - size + 1) % (2 * size)) for u in range(2 * size - 1)]
    return [(u, v, s_y, s_x) for u, s_y in steps for v, s_x in steps]


def visible_energies(
    images: NDArray[np.float64], energies: NDArray[np.float64]
) -> None:
    """Squared norm of what each displaced patch sees."""
    for k, image in enumerate(images):
        for u, v, s_y, s_x in displacements(len(image)):
            energies[k, u, v] = np.sum(shifted_view(image, (s_y, s_x)) ** 2)


def weigh(
    patch: NDArray[np.float64],
    template: NDArray[np.float64],
    bias: NDArray[np.float64],
    level: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Powers of two of the inner products with the displaced templates plus the bias.

    Zero below 2**-50 of the level. Also their sums for each rotation, and the largest
    exponents. `patch` is (L, L, lanes), `template` (2, L, L), `bias` (2, 2L-1, 2L-1),
    `level` (lanes,).
    """
    exponents = np.zeros((*bias.shape, patch.shape[2]))
    for r, image in enumerate(template):
        for u, v, s_y, s_x in displacements(len(image)):
            seen = shifted_view(image, (s_y, s_x))
            for lane in range(patch.shape[2]):
                product = np.sum(patch[:, :, lane] * seen)
                exponents[r, u, v, lane] = bias[r, u, v] + product
    weight = np.where(exponents - level > -50, 2.0 ** (exponents - level), 0.0)
    return weight, weight.sum(axis=(1, 2)), exponents.max(axis=(0, 1, 2))


def on_disc(templates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Templates (..., L, L) without the pixels outside of the disc of radius L // 2."""
    size = templates.shape[-1]
    cut = templates.copy()
    for y, x in np.ndindex(size, size):
        if (y - size // 2) ** 2 + (x - size // 2) ** 2 > (size // 2) ** 2:
            cut[..., y, x] = 0
    return cut


def weigh_disc(
    patch: NDArray[np.float64],
    template: NDArray[np.float64],
    bias: NDArray[np.float64],
    level: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """As `weigh`, of the templates' pixels on the disc."""
    return weigh(patch, on_disc(template), bias, level)


def patch_spectrum(patch: NDArray[np.float64], side: int) -> NDArray[np.complex128]:
    """Fourier transform over n**2 of patches (L, L, lanes) padded to n pixels a side.

    Column by column: entry [j, i] has row frequency i and column frequency j.
    """
    size, _, n_lanes = patch.shape
    y, x = np.mgrid[:size, :size]
    spectrum = np.zeros((side, side, n_lanes), dtype=complex)
    for j, i in np.ndindex(side, side):
        wave = np.exp(-2j * np.pi * (i * y + j * x) / side)
        for lane in range(n_lanes):
            spectrum[j, i, lane] = np.sum(patch[:, :, lane] * wave) / side**2
    return spectrum


def add_weights(
    weight: NDArray[np.float64], shift_mass: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mass of each shift with the weights of two rotations; (2, n, lanes), (n, lanes).

    The sum over rotations in equation (36).
    """
    return np.asarray(shift_mass + weight[0] + weight[1])


def box_sums(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight under which each projection pixel is in view: sum of w_l V_l.

    `weight` is (2L-1, 2L-1, lanes), the result (L, L, lanes).
    """
    size = (len(weight) + 1) // 2
    visible = np.zeros((size, size, weight.shape[2]))
    for u, v in np.ndindex(2 * size - 1, 2 * size - 1):
        for y, x in np.ndindex(size, size):
            i, j = y - (u - size + 1), x - (v - size + 1)
            if 0 <= i < size and 0 <= j < size:
                visible[y, x] += weight[u, v]
    return visible


def adjoint(
    patch: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted patch moved back onto the projection: sum of w_l unshift_l(I).

    `patch` and the result are (L, L, lanes), `weight` is (2L-1, 2L-1, lanes).
    """
    size = len(patch)
    weighted = np.zeros(patch.shape)
    for u, v in np.ndindex(2 * size - 1, 2 * size - 1):
        for i, j in np.ndindex(size, size):
            y, x = i + u - size + 1, j + v - size + 1
            if 0 <= y < size and 0 <= x < size:
                weighted[y, x] += weight[u, v] * patch[i, j]
    return weighted


def add_lanes(
    images: NDArray[np.float64],
    scale: NDArray[np.float64],
    total: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Add each lane's pixels times its factor to the total."""
    result = total.astype(float)
    for pixel in range(images.shape[0]):
        for lane in range(images.shape[1]):
            result[pixel] += images[pixel, lane] * scale[lane]
    return result


def joint_log_probabilities(
    patches: NDArray[np.float64],
    images: NDArray[np.float64],
    shift_prior: NDArray[np.float64],
    noise_variance: float,
    rotation_prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Log of p(I_p, shift, rotation), (18) and (24), shape (P, K, 2L, 2L)."""
    size = images.shape[1]
    joint = np.empty((len(patches), len(images), 2 * size, 2 * size))
    constant = size**2 / 2 * np.log(2 * np.pi * noise_variance)
    with np.errstate(divide="ignore"):
        log_prior = np.log(shift_prior), np.log(rotation_prior)
    for k, image in enumerate(images):
        for s_y, s_x in np.ndindex(2 * size, 2 * size):
            seen = shifted_view(image, (s_y, s_x))
            for p, patch in enumerate(patches):
                distance = np.sum((patch - seen) ** 2)
                likelihood = -distance / (2 * noise_variance) - constant
                prior = log_prior[0][s_y, s_x] + log_prior[1][k]
                joint[p, k, s_y, s_x] = likelihood + prior
    return joint


def posterior(
    joint: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Equation (23) from joint log-probabilities, and log p(I_p) of each patch."""
    weight = np.empty_like(joint)
    evidence = np.empty(len(joint))
    for p, table in enumerate(joint):
        largest = table.max()
        total = np.sum(np.exp(table - largest))
        evidence[p] = largest + np.log(total)
        weight[p] = np.exp(table - evidence[p])
    return weight, evidence


def accumulate_statistics(
    patches: NDArray[np.float64],
    images: NDArray[np.float64],
    shift_prior: NDArray[np.float64],
    noise_variance: float,
    rotation_prior: NDArray[np.float64],
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    float,
]:
    """Sums over patches of the posterior over all (2L)**2 shifts and K rotations.

    Returns the visible weight and weighted patch (K, L, L), the mass of each shift
    (2L, 2L) and of each rotation (K,), and the log-likelihood.
    """
    patches = np.asarray(patches, dtype=float)
    n_rotations, size, _ = images.shape
    weight, evidence = posterior(
        joint_log_probabilities(
            patches, images, shift_prior, noise_variance, rotation_prior
        )
    )
    visible_weight = np.zeros(images.shape)
    weighted_patch = np.zeros(images.shape)
    for s_y, s_x in np.ndindex(2 * size, 2 * size):
        for i, j in np.ndindex(size, size):
            y, x = (i + s_y) % (2 * size), (j + s_x) % (2 * size)
            if y < size and x < size:
                seen = weight[:, :, s_y, s_x]
                for k in range(n_rotations):
                    visible_weight[k, y, x] += np.sum(seen[:, k])
                    weighted_patch[k, y, x] += np.sum(seen[:, k] * patches[:, i, j])
    shift_mass, rotation_mass = weight.sum(axis=(0, 1)), weight.sum(axis=(0, 2, 3))
    return visible_weight, weighted_patch, shift_mass, rotation_mass, evidence.sum()


def normal_equations(
    patches: NDArray[np.float64],
    weight: NDArray[np.float64],
    matrices: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Equations (31) and (30) for real coefficients, sums in the order printed.

    `weight` is the posterior (P, K, 2L, 2L), `matrices` (K, L**2, M) holds the sums
    over N and n: the projection of every basis function in every rotation.
    """
    size = patches.shape[1]
    n_coefficients = matrices.shape[2]
    matrix = np.zeros((n_coefficients, n_coefficients))
    right_side = np.zeros(n_coefficients)
    for k, columns in enumerate(matrices):
        functions = columns.T.reshape(n_coefficients, size, size)
        for s_y, s_x in np.ndindex(2 * size, 2 * size):
            seen = [shifted_view(function, (s_y, s_x)) for function in functions]
            for p, patch in enumerate(patches):
                share = weight[p, k, s_y, s_x]
                for first in range(n_coefficients):
                    right_side[first] += share * np.sum(patch * seen[first])
                    for second in range(n_coefficients):
                        product = np.sum(seen[first] * seen[second])
                        matrix[first, second] += share * product
    return matrix, right_side


def shift_prior_table(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equation (37) from the posterior (P, K, 2L, 2L)."""
    prior = np.zeros(weight.shape[2:])
    for of_patch in weight:
        for of_rotation in of_patch:
            prior += of_rotation / len(weight)
    return prior


def expected_log_likelihood(
    weight: NDArray[np.float64], joint: NDArray[np.float64]
) -> float:
    """Equations (22) and (25): posterior (P, K, 2L, 2L) times joint log-probability."""
    total = 0.0
    for p, k in np.ndindex(weight.shape[:2]):
        for s_y, s_x in np.ndindex(weight.shape[2:]):
            if weight[p, k, s_y, s_x] > 0:
                total += float(weight[p, k, s_y, s_x] * joint[p, k, s_y, s_x])
    return total


def wigner_matrices(
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    tilt_series: NDArray[np.float64],
    wigner: NDArray[np.float64],
) -> None:
    """Exponentials of the angular momenta in real harmonics, no series."""
    ell = wigner.shape[1] // 2
    if ell == 0:
        wigner[...] = 1
        return
    m = np.arange(-ell, ell + 1)
    raising = np.diag(np.sqrt(ell * (ell + 1) - m[:-1] * m[1:]), -1)
    to_real = np.zeros((2 * ell + 1, 2 * ell + 1), dtype=complex)
    for order in m:
        sign, plus, minus = (-1.0) ** order, ell + abs(order), ell - abs(order)
        if order > 0:
            to_real[ell + order, [plus, minus]] = sign / 2**0.5, 1 / 2**0.5
        elif order < 0:
            to_real[ell + order, [plus, minus]] = -1j * sign / 2**0.5, 1j / 2**0.5
        else:
            to_real[ell, ell] = 1
    about_y = (raising - raising.T) / 2j
    for k in range(len(wigner)):
        a, b, c = np.arctan2(sines[:, k, 1], cosines[:, k, 1])
        turn = linalg.expm(-1j * a * np.diag(m))
        turn = turn @ linalg.expm(-1j * b * about_y)
        turn = turn @ linalg.expm(-1j * c * np.diag(m))
        wigner[k] = (to_real.conj() @ turn @ to_real.T).real


def window_log_evidence(
    micrograph: NDArray[np.float64],
    images: NDArray[np.float64],
    noise_variance: float,
    rotation_prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """log pi_k + a(r, k) of the window model, shape (rows, columns, K)."""
    size = images.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(micrograph, (size, size))
    products = np.einsum("yxij,kij->yxk", windows, images)
    gains = products - np.sum(images**2, axis=(1, 2)) / 2
    return np.log(rotation_prior) + gains / noise_variance


def neighbourhood_sums(size: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over all places less than `size` away on both axes."""
    sums = np.zeros_like(values)
    for y, x in np.ndindex(values.shape):
        top, left = max(0, y - size + 1), max(0, x - size + 1)
        sums[y, x] = values[top : y + size, left : x + size].sum()
    return sums


def window_posterior(
    micrograph: NDArray[np.float64],
    images: NDArray[np.float64],
    noise_variance: float,
    empty_prior: float,
    rotation_prior: NDArray[np.float64],
    whole: NDArray[np.bool_],
    reach: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weights w(r, k) and log D(r) of the window model, and b_k.

    Windows that are not whole have no evidence, no weight and a log D of NaN.
    """
    particle_prior = (1 - empty_prior) / (2 * reach - 1) ** 2
    log_evidence = window_log_evidence(
        micrograph, images, noise_variance, rotation_prior
    )
    log_evidence[~whole] = -np.inf
    size = images.shape[1]
    weight = np.zeros_like(log_evidence)
    log_mixture = np.full(whole.shape, np.nan)
    sums = np.zeros(images.shape)
    for y, x in zip(*np.nonzero(whole), strict=True):
        around = log_evidence[
            max(0, y - reach + 1) : y + reach, max(0, x - reach + 1) : x + reach
        ]
        terms = np.append(np.log(particle_prior) + around, np.log(empty_prior))
        log_mixture[y, x] = np.logaddexp.reduce(terms)
        weight[y, x] = np.exp(
            np.log(particle_prior) + log_evidence[y, x] - log_mixture[y, x]
        )
        window = micrograph[y : y + size, x : x + size]
        sums += weight[y, x][:, None, None] * window
    return weight, log_mixture, sums


def configuration_posterior(
    evidence: NDArray[np.float64], odds: float, spacing: int
) -> NDArray[np.float64]:
    """Posterior of a particle at each place, over all ways to place particles.

    A configuration of n particles, any two at least `spacing` apart on one axis or
    the other, has prior odds**n and likelihood ratio prod_i S(r_i) to noise alone.
    """
    places = list(np.ndindex(evidence.shape))
    mass = np.zeros(evidence.shape)
    total = 0.0

    def place_more(first: int, chosen: list[tuple[int, ...]], weight: float) -> None:
        nonlocal total
        total += weight
        for place in chosen:
            mass[place] += weight
        for number in range(first, len(places)):
            y, x = places[number]
            if all(max(abs(y - b), abs(x - a)) >= spacing for b, a in chosen):
                more = weight * odds * float(evidence[y, x])
                place_more(number + 1, [*chosen, (y, x)], more)

    place_more(0, [], 1.0)
    return mass / total


def window_features(images, pixels):
    """Inner products of every whole window with images: (rows, columns, n_images)."""
    n_images, size, _ = images.shape
    n_rows, n_columns = (n - size + 1 for n in pixels.shape)
    features = np.empty((n_rows, n_columns, n_images))
    for y in range(n_rows):
        for x in range(n_columns):
            features[y, x] = add_window_products(images, pixels, y, x)
    return features


def add_window_products(images, pixels, y, x):
    """Inner products of the window that begins at (y, x) with images."""
    size = images.shape[1]
    window = pixels[y : y + size, x : x + size]
    return np.array([np.sum(image * window) for image in images])


def _steered_product(features, pair, orders, angle, mirrored):
    """Inner product of one window with the projection of a view turned by an angle."""
    n_half = len(orders)
    total = 0.0
    for n, order in enumerate(orders):
        c, s = features[n], features[n_half + n]
        p, q = pair[n], -pair[n_half + n] if mirrored else pair[n_half + n]
        total += (p * c + q * s) * np.cos(order * angle)
        total += (p * s - q * c) * np.sin(order * angle)
    return total


def add_steered_evidence(features, pair, orders, angles, bias):
    """Sum of 2**exponent over both views of a pair and all angles, for each window."""
    return np.array(
        [
            sum(
                2.0
                ** (bias[view, a] + _steered_product(one, pair, orders, angle, view))
                for view in (0, 1)
                for a, angle in enumerate(angles)
            )
            for one in features
        ]
    )


def steered_evidence(features, coefficients, orders, angles, bias):
    """Evidence of each window: the sum over pairs, bias of shape (n_pairs, 2, n)."""
    pairs = zip(coefficients, bias, strict=True)
    return sum(add_steered_evidence(features, p, orders, angles, b) for p, b in pairs)


def weigh_steered(features, pair, orders, angles, bias, log2_divisor):
    """Weights (2, n_angles) of a pair's rotations, and what they bring back to p, q."""
    n_half = len(orders)
    mass, sums = np.zeros((2, len(angles))), np.zeros(2 * n_half)
    for window, divisor in zip(features, log2_divisor, strict=True):
        for view in (0, 1):
            for a, angle in enumerate(angles):
                product = _steered_product(window, pair, orders, angle, view)
                weight = 2.0 ** (bias[view, a] + product - divisor)
                mass[view, a] += weight
                for n, order in enumerate(orders):
                    c, s = window[n], window[n_half + n]
                    cosine, sine = np.cos(order * angle), np.sin(order * angle)
                    sums[n] += weight * (c * cosine + s * sine)
                    sign = -1 if view else 1
                    sums[n_half + n] += sign * weight * (s * cosine - c * sine)
    return mass, sums


def accumulate_steered(features, coefficients, orders, angles, bias, log2_divisor):
    """Weights and sums of all pairs; see :func:`weigh_steered`."""
    results = [
        weigh_steered(features, pair, orders, angles, of_pair, log2_divisor)
        for pair, of_pair in zip(coefficients, bias, strict=True)
    ]
    return np.array([r[0] for r in results]), np.array([r[1] for r in results])


def autocorrelation_sums(
    pixels: NDArray[np.float32],
    counted: NDArray[np.bool_],
    block_shape: tuple[int, int],
    lags: NDArray[np.int64],
    tiles: NDArray[np.int64],
    moments: NDArray[np.float64],
    block_pixels: NDArray[np.int64],
) -> None:
    """Products of three pixels at x, x + u and x + v, block by block."""
    n_lags, side = len(lags), 4

    def pixel(y: int, x: int, lag: int) -> float:
        if lag >= n_lags:
            return float(lag == n_lags)
        dy, dx = lags[lag]
        return float(pixels[y + dy, x + dx])

    n_rows, n_columns = block_shape
    blocks = [
        [
            (y, x)
            for y in range(top, min(top + n_rows, len(pixels)))
            for x in range(left, min(left + n_columns, pixels.shape[1]))
            if counted[y, x]
        ]
        for top in range(0, len(pixels), n_rows)
        for left in range(0, pixels.shape[1], n_columns)
    ]
    block_pixels[:] = [len(block) for block in blocks]
    for chunk, numbers in enumerate(
        range(i * len(blocks) // len(moments), (i + 1) * len(blocks) // len(moments))
        for i in range(len(moments))
    ):
        moments[chunk] = 0
        for number in numbers:
            sums = []
            for first, second in tiles:
                for a in range(first * side, (first + 1) * side):
                    for b in range(second * side, (second + 1) * side):
                        # The last group is filled up with the first lag.
                        lag = b if b < n_lags else 0
                        products = [
                            float(pixels[y, x]) * pixel(y, x, a) * pixel(y, x, lag)
                            for y, x in blocks[number]
                        ]
                        sums.append(sum(products))
            sums.append(sum(float(pixels[y, x]) for y, x in blocks[number]))
            moments[chunk, 0] += sums
            moments[chunk, 1] += np.square(sums)
            moments[chunk, 2] += np.array(sums) * len(blocks[number])
