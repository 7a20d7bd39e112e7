"""The native price against SciPy's and against a grid, on random curves, values, floors and caps.

Every row has its own location and slope, from two categories of an artifact; γ and the slope's factor change from
artifact to artifact. Reported: the largest relative difference of the native bid from SciPy's root and from the NumPy
reference, of the win rate, and by how much of the surplus a 10,000-point grid ever beats the bid (its best point in
full on a share of the rows, the points next to the bid on all).

    python -m benchmarks.price_exactness [--rows 10000000] [--seed 1] [--family log_normal]

Exits with 1 when a difference is above 1e-12.
"""

from __future__ import annotations

import argparse
from array import array
from dataclasses import dataclass, fields

import numpy as np

from benchmarks.price_by_scipy import best_beside_cpm, best_on_grid_cpm, optimum_by_root_cpm
from bidml.blueprint import Blueprint, CtrBlueprint, Head, Lookup, WinBlueprint, WinFamily
from bidml.contract import MAX_LOG_SLOPE, MIN_LOG_SLOPE, Feature, FeatureKind, FeatureSpec
from bidml.metadata import SelfCheck
from bidml.pricing import WinCurve, optimal_bid_cpm, surplus_cpm
from bidml.score import Scorer
from bidml.score.reader import Artifact

TOLERANCE = 1e-12
ROWS_PER_ARTIFACT = 100_000
FULL_GRID_SHARE = 0.01
_N_LEVELS = 3_000
_LEAST_RATE = 1e-290  # subnormal rates have no 12 digits
# ln Φ goes with (ln b − m)²: where it is −600, the last bit of ln b is 1e-12 of Φ, whoever computes it.
_LEAST_EXACT_RATE = {WinFamily.LOG_LOGISTIC: _LEAST_RATE, WinFamily.LOG_NORMAL: 1e-100}
_SPEC = FeatureSpec(
    (
        Feature("location", FeatureKind.CATEGORY, "app.bundle"),
        Feature("slope", FeatureKind.CATEGORY, "imp.tagid"),
    )
)


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest relative ones. `grid`: what the best grid point earns above the bid; negative: nothing does."""

    scipy_bid: float
    numpy_bid: float
    win_rate: float
    grid: float
    n_rows: int
    n_bids: int

    def worst(self, other: Differences) -> Differences:
        """Of both."""
        found = {f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        found["n_rows"], found["n_bids"] = self.n_rows + other.n_rows, self.n_bids + other.n_bids
        return Differences(**found)

    @property
    def exact(self) -> bool:
        """True if all are within `TOLERANCE`; false on NaN."""
        return all(x <= TOLERANCE for x in (self.scipy_bid, self.numpy_bid, self.win_rate, self.grid))


def scorer_of_random_curves(
    gamma: float, slope_scale: float, rng: np.random.Generator, family: WinFamily = WinFamily.LOG_LOGISTIC
) -> Scorer:
    """An artifact whose win curve is any of `_N_LEVELS`² by the two categories; pctr is 1/2."""
    keys = tuple(sorted(str(i) for i in range(_N_LEVELS)))
    ln_k = rng.uniform(MIN_LOG_SLOPE, MAX_LOG_SLOPE, _N_LEVELS)
    location = Lookup("location", keys, array("d", rng.uniform(-60.0, 60.0, _N_LEVELS)), 0.0)
    slope = Lookup("slope", keys, array("d", ln_k), 0.0)
    win = WinBlueprint(
        Head((), None, (location,)),
        Head((), None, (slope,)),
        reference_log_bid_cpm=0.3,
        slope_scale=slope_scale,
        gamma=gamma,
        family=family,
    )
    blueprint = Blueprint(spec=_SPEC, ctr=CtrBlueprint(Head((), None)), win=win, currency="USD")
    return Scorer(Artifact(blueprint, SelfCheck({}, {}), ""))


def differences(
    n: int,
    gamma: float,
    rng: np.random.Generator,
    *,
    slope_scale: float = 1.0,
    n_full_grid: int = 0,
    family: WinFamily = WinFamily.LOG_LOGISTIC,
) -> Differences:
    """Of `n` rows of one artifact. Raises `AssertionError` if the native price bids where SciPy does not."""
    scorer = scorer_of_random_curves(gamma, slope_scale, rng, family)
    columns = {name: rng.integers(0, _N_LEVELS, n).astype(str).tolist() for name in _SPEC.names}
    found = {name: np.empty(n) for name in ("win_location", "win_shape", "bid_cpm", "win_rate")}
    scorer.score_many(columns, {name: found[name] for name in ("win_location", "win_shape")})
    curve = WinCurve(found["win_location"], found["win_shape"], gamma, family)
    value = np.exp(np.clip(curve.location + rng.uniform(-12.0, 12.0, n), -300.0, 300.0))
    floor = np.where(rng.random(n) < 0.3, value * np.exp(rng.normal(-1.0, 1.5, n)), 0.0)
    cap = np.where(rng.random(n) < 0.3, value * np.exp(rng.normal(-0.5, 1.0, n)), np.inf)
    prices = {"floor_cpm": floor, "cap_cpm": cap, "pacing_multiplier": 1.0, "auction_type": 1.0}
    scorer.score_many({**columns, "value_per_click": value / 500.0, **prices}, found)
    value = 1000.0 * 0.5 * (value / 500.0)  # in the order of the native sum
    bid, rate = found["bid_cpm"], found["win_rate"]
    valid = (cap >= floor) & (value > floor)
    root = optimum_by_root_cpm(value, curve)
    by_scipy = np.where(valid, np.minimum(np.maximum(root, floor), np.minimum(cap, value)), 0.0)
    by_numpy = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap)
    assert not np.isnan(bid).any()
    assert np.array_equal(bid > 0.0, by_scipy > 0.0)
    rows = np.flatnonzero((bid > 0.0) & (rate > _LEAST_RATE))
    likely = rows[rate[rows] > _LEAST_EXACT_RATE[family]]
    earned = surplus_cpm(value, bid, curve.win_rate(bid))
    best = best_beside_cpm(bid, value, curve, floor, cap)
    full = rows[:n_full_grid]
    best[full] = np.maximum(best[full], best_on_grid_cpm(value[full], curve[full], floor[full], cap[full]))
    return Differences(
        scipy_bid=_largest(bid[rows], by_scipy[rows]),
        numpy_bid=_largest(bid[rows], by_numpy[rows]),
        win_rate=_largest(rate[likely], curve[likely].win_rate(bid[likely])),
        grid=_most_above(best[rows], earned[rows]),
        n_rows=n,
        n_bids=len(rows),
    )


def _largest(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted) / wanted))


def _most_above(best: np.ndarray, earned: np.ndarray) -> float:
    """Of a surplus of 0 (a chance of 1e-200 to earn 1e-130) nothing is above but what is positive."""
    above = np.divide(best, earned, out=np.where(best > 0.0, np.inf, 1.0), where=earned > 0.0)
    return float(np.max(above - 1.0))


def main() -> None:
    """Prints the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", type=WinFamily, choices=list(WinFamily), default=WinFamily.LOG_LOGISTIC)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    n = min(options.rows, ROWS_PER_ARTIFACT)
    worst: Differences | None = None
    for _ in range(-(-options.rows // n)):
        gamma, slope_scale = np.exp(rng.uniform(np.log(0.1), np.log(10.0))), np.exp(rng.uniform(-0.7, 0.7))
        found = differences(
            n,
            float(gamma),
            rng,
            slope_scale=float(slope_scale),
            n_full_grid=int(FULL_GRID_SHARE * n),
            family=options.family,
        )
        worst = found if worst is None else worst.worst(found)
    assert worst is not None
    for field in fields(worst):
        print(f"{field.name:12s}{getattr(worst, field.name):.3g}")
    raise SystemExit(0 if worst.exact else 1)


if __name__ == "__main__":
    main()
