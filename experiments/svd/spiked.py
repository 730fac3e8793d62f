"""Singular values of a signal in noise, the spiked model: Y = theta * u v^T + Z / sqrt(n).

u and v are random unit vectors of m and n entries; Z is m x n, its entries independent and standard normal.
"""

import numpy as np


def leading(m, n, theta, seed):
    """The two largest singular values of Y, and the squared cosines between its leading singular vectors and u, v."""
    y, u, v = observed(m, n, theta, seed)
    left, values, right = np.linalg.svd(y, full_matrices=False)
    return {
        "sigma": values[0],
        "sigma_2": values[1],
        "overlap_u": (left[:, 0] @ u) ** 2,
        "overlap_v": (right[0] @ v) ** 2,
    }


def vectors(m, n, theta, seed):
    """The whole leading right singular vector, turned towards v: a column per entry."""
    y, _, v = observed(m, n, theta, seed)
    _, values, right = np.linalg.svd(y, full_matrices=False)
    return {"sigma": values[0], "v": right[0] * np.sign(right[0] @ v)}


def observed(m, n, theta, seed):
    """Y, and the u and v that are hidden in it."""
    random = np.random.default_rng(seed)
    u, v = unit(random, m), unit(random, n)
    return theta * np.outer(u, v) + random.standard_normal((m, n)) / np.sqrt(n), u, v


def unit(random, size):
    vector = random.standard_normal(size)
    return vector / np.linalg.norm(vector)
