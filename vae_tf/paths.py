"""Paths between two codes: the straight line, and the arc of a great circle. Needs NumPy alone."""

import numpy as np

from vae_tf.errors import check_choice


def straight(start, end, weights):
    """z(t) = (1 − t)·z₀ + t·z₁.

    Args:
        start, end: z₀ and z₁, codes of one shape.
        weights: t, of shape `(num,)`.

    Returns:
        `(num, *shape of a code)`.
    """
    t = np.reshape(weights, (-1, *(1 for _ in np.shape(start))))
    return (1 - t) * start + t * end


def spherical(start, end, weights):
    """z(t) = ((1 − t)·|z₀| + t·|z₁|) · (cos(tΩ)·u + sin(tΩ)·v): the direction turns, the length grows evenly.

    u is z₀'s direction, v the direction of what z₁ has across it, and Ω the angle between the two. For
    codes of one length this is the usual sin((1 − t)Ω)/sin Ω · z₀ + sin(tΩ)/sin Ω · z₁, without its
    division by 0: nearly parallel codes give the straight line. From a code to its opposite every arc is as
    short; the one through the direction of the least number of z₀ is taken. A code of length 0 has no
    direction, and is given the other's.

    Args, result: as for `straight`; a map of codes is taken as one long vector.

    Source: Shoemake (1985), "Animating rotation with quaternion curves"; for codes White (2016), "Sampling
    generative networks".
    """
    shape, (start, end) = np.shape(start), (np.ravel(np.float64(z)) for z in (start, end))
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    u = _direction(start if lengths[0] else end)
    towards = _direction(end if lengths[1] else start)
    across = towards - (towards @ u) * u
    if np.linalg.norm(across) < 1e-6:  # parallel, or opposite
        least = np.eye(1, u.size, np.abs(u).argmin())[0]
        across = least - (least @ u) * u
    v = _direction(across)
    t = np.reshape(weights, (-1, 1))
    angle = t * np.arctan2(towards @ v, towards @ u)
    found = ((1 - t) * lengths[0] + t * lengths[1]) * (np.cos(angle) * u + np.sin(angle) * v)
    return found.reshape(-1, *shape)


PATHS = {"straight": straight, "spherical": spherical}


def between(start, end, num, path="straight"):
    """`num` codes from one to another, both included, as float32: `path` is "straight" or "spherical"."""
    check_choice("path", path, PATHS)
    return np.float32(PATHS[path](start, end, np.linspace(0.0, 1.0, num)))


def _direction(z):
    length = np.linalg.norm(z)
    return z / length if length else z
