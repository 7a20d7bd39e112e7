"""Numbers in, float64 arrays out; and two functions that must be spelled as in the twins of the price."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bidml.errors import ConfigError, DataError

Doubles: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.ArrayLike


def aligned(**arguments: Numbers) -> tuple[Doubles, ...]:
    """The arguments as doubles of one shape (n,); a scalar becomes (1,) when all are scalars."""
    arrays = {name: np.atleast_1d(double(numbers)) for name, numbers in arguments.items()}
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        raise DataError(
            "prices and curves have one row per auction, or one for all",
            value={name: array.shape for name, array in arrays.items()},
            remedy="align the arrays to shape (n,)",
        ) from None


def double(numbers: Numbers) -> Doubles:
    try:
        return np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError("prices and rates are numbers", value=numbers, remedy="convert them") from None


def sigmoid(x: Doubles) -> Doubles:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0.0, 1.0, e) / (1.0 + e))


def softplus(x: Doubles) -> Doubles:
    return np.asarray(np.maximum(x, 0.0) + np.log(1.0 + np.exp(-np.abs(x))))
