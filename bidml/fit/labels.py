"""Outcomes, checked before anything is learnt from them; and an alarm for features that are the outcome."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.errors import ConfigError, DataError
from bidml.features import Doubles
from bidml.fit.crew import ALONE, Crew
from bidml.metrics import auc

LEAK_AUC: Final = 0.97  # no honest feature by itself tells clicks from others so well
_MIN_EVENTS: Final = 10
_MAX_ROWS: Final = 40_000


class LeakWarning(UserWarning):
    """A feature by itself nearly decides the outcome: probably it is only known after the click."""


def checked_outcomes(y: npt.ArrayLike, n_rows: int, *, soft: bool = False) -> Doubles:
    """`y` as doubles, (n_rows,): flags, 0 and 1, or with `soft` anything between.

    Raises `DataError` for another shape, NaN, other values, or outcomes that are all the same.
    """
    cells = pd.Series(np.asarray(y).ravel() if not isinstance(y, pd.Series) else y.to_numpy())
    if np.ndim(y) != 1 or len(cells) != n_rows:
        raise DataError(f"there is one outcome per row: {n_rows}", value=np.shape(y), remedy="align X and y")
    try:
        outcome = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError("an outcome is 0 or 1", value=cells.iloc[0], remedy="convert it to flags") from None
    allowed = (outcome >= 0.0) & (outcome <= 1.0) if soft else (outcome == 0.0) | (outcome == 1.0)
    if not allowed.all():
        raise DataError(
            "an outcome is 0 or 1" if not soft else "an expected outcome is from 0 to 1",
            value=float(outcome[~allowed][0]),
            remedy="set aside rows whose outcome is not known",
        )
    if n_rows == 0 or outcome.min() == outcome.max():
        found = "no rows" if n_rows == 0 else f"only {outcome[0]:g}"
        raise DataError(
            "there are rows of both outcomes",
            value=found,
            remedy="take a longer time window, or check the join",
        )
    return outcome


def checked_weights(sample_weight: npt.ArrayLike | None, n_rows: int) -> Doubles | None:
    """Weights as doubles, (n_rows,), or None. Raises `DataError` for another shape, NaN, negative, or all zero."""
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_rows,) or not (
        np.isfinite(weight).all() and (weight >= 0.0).all() and weight.any()
    ):
        raise DataError(
            f"weights are {n_rows} finite numbers, not negative, not all 0",
            value=weight.shape,
            remedy="correct them",
        )
    return weight


def checked_rate(negative_sampling_rate: float) -> float:
    """A share of unclicked impressions that was kept. Raises `ConfigError` outside (0, 1]."""
    if not 0.0 < negative_sampling_rate <= 1.0:
        raise ConfigError(
            "a sampling rate is above 0 and at most 1", value=negative_sampling_rate, remedy="correct it"
        )
    return negative_sampling_rate


def find_leaks(
    names: Sequence[str], training: Doubles, y: Doubles, *, rng: np.random.Generator, crew: Crew = ALONE
) -> dict[str, float]:
    """The features one of whose columns, in either direction, has an AUC of `LEAK_AUC` or more; by name.

    `names`: the feature of each column of `training` (n_rows, n_columns), whose encodings have not seen their own
    outcome. Judged on a sample of rows, half of them events if there are enough; not at all below ten events.
    """
    event = y > 0.5
    most = _MAX_ROWS // 2 // crew.size
    events, others = (rng.permutation(np.flatnonzero(flags))[:most] for flags in (event, ~event))
    rows = np.concatenate((events, others))
    outcome = crew.rows(event[rows].astype(np.float64))
    if min(outcome.sum(), (1.0 - outcome).sum()) < _MIN_EVENTS:
        return {}
    found: dict[str, float] = {}
    for name, column in zip(names, training.T, strict=True):
        cells: Any = crew.rows(column[rows])
        cells = np.where(np.isnan(cells), -np.finfo(np.float64).max, cells)  # missing is a value, too
        area = auc(outcome, cells)
        area = max(area, 1.0 - area)
        if area >= LEAK_AUC:
            found[name] = max(area, found.get(name, 0.0))
    return found


def warn_of_leaks(leaks: dict[str, float]) -> None:
    for name, area in leaks.items():
        warnings.warn(
            f"feature {name} by itself has an AUC of {area:.4f}: it is probably known only after the click. "
            "Drop it from the spec, or make sure that the bidder has it before the auction.",
            LeakWarning,
            stacklevel=3,
        )
