"""Can this log teach the win curve? How much our bids varied given x, and what that leaves unknown, in money.

With win/loss feedback, location and slope are identified only by the variation of our own bid given x: a bid that is a
function of x shows one point of each curve. The report (SCIENCE.md 2.4, 3.3):

- R² of ln b given x, out of fold: the share of the variation of our bids that x explains.
- SE(ln k) = I^{-1/2}, I = Σ p (1 − p) k² (ln b − ĉ(x))² over win/loss rows, plus (3 + π²)/9 for each exact price (the
  information of a logistic's log scale). Of a log-normal curve: φ²/(p (1 − p)) for p (1 − p), 2 for (3 + π²)/9. ĉ(x)
  is the out-of-fold mean of ln b: with deviations from the overall mean the error is understated tenfold where bids
  follow x.
- The predicted relative regret ½ κ [(∂ ln b*/∂m)² Var m + (∂ ln b*/∂ ln k)² Var ln k] (`bidml.pricing.sensitivity`; κ
  = k (k + 1)(1 − F) of the log-logistic), at the logged bids, by segments of equal size in order of ĉ(x), each with
  the information it has alone.

Not in it: the bias of regularisation, which shrinks what the data cannot tell.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np

from bidml.blueprint import WinFamily
from bidml.contract import FeatureSpec
from bidml.features import RawColumns
from bidml.fit.crew import ALONE, Crew, total
from bidml.fit.encoding import Categories, Indices, OtherFolds, StepEvidence, effect_column
from bidml.fit.observations import Doubles, MarketPriceObservations
from bidml.pricing import WinCurve
from bidml.pricing.family import fall_of_hazard, hazard, quantile

MAX_BID_R2: Final = 0.95
MAX_RELATIVE_REGRET: Final = 0.005
_EXACT_PRICE_INFORMATION: Final = (3.0 + np.pi**2) / 9.0
_SEGMENTS: Final = 10
_MOST_ROWS: Final = 100_000
_ROUNDS: Final = 60
_SMALLEST_RATE: Final = 1e-12


class IdentifiabilityWarning(UserWarning):
    """The log does not vary the bids enough to learn the win curve from: explore (jitter ln b, and log its density)."""


@dataclass(frozen=True, slots=True)
class Identifiability:
    """What the bids of a log can teach. `bid_r2`: of ln b given x, out of fold; `exact_share`: rows with a known price.

    `se_log_slope`: of ln k, from all rows; `predicted_relative_regret`: mean over segments, of the attainable surplus.
    """

    n_rows: int
    exact_share: float
    bid_r2: float
    residual_sd_log_bid: float
    se_log_slope: float
    predicted_relative_regret: float

    @property
    def identified(self) -> bool:
        """False where a fit warns: bids follow x and few exact prices make up for it, or regret is above its limit."""
        return self.weakness is None

    @property
    def weakness(self) -> str | None:
        """Why the curve is not identified well, in words; None if it is."""
        if self.bid_r2 > MAX_BID_R2 and self.exact_share < 0.2:
            return (
                f"the features explain {self.bid_r2:.1%} of the variation of ln bid, above {MAX_BID_R2:.0%}"
            )
        if self.predicted_relative_regret > MAX_RELATIVE_REGRET:
            return (
                f"the uncertainty of the curve costs about {self.predicted_relative_regret:.2%} of the surplus, "
                f"above {MAX_RELATIVE_REGRET:.1%}"
            )
        return None

    def warn(self) -> None:
        """Emits an `IdentifiabilityWarning` if there is a weakness."""
        if self.weakness is not None:
            warnings.warn(
                f"the win curve is poorly identified: {self.weakness}; bid with a random factor on 5 to 10 % of the "
                "traffic and log its density, or get min-bid-to-win feedback",
                IdentifiabilityWarning,
                stacklevel=3,
            )


def identifiability(
    observations: MarketPriceObservations,
    curve: WinCurve,
    spec: FeatureSpec,
    raw: RawColumns,
    *,
    folds: Indices,
    seed: int,
    n_threads: int,
    crew: Crew = ALONE,
) -> Identifiability:
    """The report for rows (n,) with fitted curves (n,); `raw`: their `features.raw_columns`; `folds` (n,) from 0.

    In a crew each rank's rows are its sample of the rows of all.
    """
    n_rows = int(total(crew, len(observations))[0])
    rows = np.arange(len(observations))
    if len(rows) > _MOST_ROWS:
        rows = rows[:: -(-len(rows) // _MOST_ROWS)]
    share = len(rows) / n_rows
    seen, at = observations.take(rows), curve[rows]
    log_bid = np.log(seen.bid_cpm)
    columns = {name: cells[rows] for name, cells in raw.items()}
    center = _out_of_fold_mean(spec, columns, log_bid, folds[rows], seed=seed, n_threads=n_threads)
    deviation = log_bid - center
    spread = float(log_bid.var())
    k, w = at.shape, seen.weight
    p = np.clip(at.win_rate(seen.bid_cpm), _SMALLEST_RATE, 1.0 - _SMALLEST_RATE)
    if at.family is WinFamily.LOG_NORMAL:
        z = quantile(np.log(p), at.family)
        rho, fall = hazard(z, at.family), fall_of_hazard(z, at.family)
        fisher, of_price, of_scale = w * k * k * p * rho**2 / (1.0 - p), w * k * k, 2.0
        odds = k * rho
        bend = 1.0 + odds + k * fall
        kappa, dm, dk = odds * bend, k * fall / bend, (1.0 - fall * z) / bend
    else:
        fisher, of_price, of_scale = w * k * k * p * (1.0 - p), w * k * k / 3.0, _EXACT_PRICE_INFORMATION
        kappa = k * (k + 1.0) * (1.0 - p)
        dm = k * p / (k + 1.0)
        dk = (1.0 - p * (np.log(p) - np.log1p(-p))) / (k + 1.0)
    information_m = np.where(seen.exact, of_price, fisher)
    information_k = np.where(seen.exact, w * of_scale, fisher * deviation**2)
    regret = []
    for segment in np.array_split(np.argsort(center, kind="stable"), min(_SEGMENTS, len(rows))):
        var_m = share / max(float(information_m[segment].sum()), 1e-12)
        var_k = share / max(float(information_k[segment].sum()), 1e-12)
        loss = 0.5 * kappa[segment] * (dm[segment] ** 2 * var_m + dk[segment] ** 2 * var_k)
        regret.append(float(np.minimum(loss, 1.0).mean()))
    return Identifiability(
        n_rows=n_rows,
        exact_share=float(observations.exact.mean()),
        bid_r2=1.0 if spread <= 1e-12 else float(max(0.0, 1.0 - (deviation**2).mean() / spread)),
        residual_sd_log_bid=float(np.sqrt((deviation**2).mean())),
        se_log_slope=float(np.sqrt(share / max(float(information_k.sum()), 1e-12))),
        predicted_relative_regret=float(np.mean(regret)),
    )


def _out_of_fold_mean(
    spec: FeatureSpec, raw: RawColumns, y: Doubles, folds: Indices, *, seed: int, n_threads: int
) -> Doubles:
    """E[y | x] of each row (n,): trees of the other half of the folds, which see a category by its mean y elsewhere."""
    params: dict[str, Any] = {
        "objective": "regression", "num_leaves": 15, "learning_rate": 0.15, "min_data_in_leaf": 20, "max_bin": 63,
        "deterministic": True, "force_row_wise": True, "verbosity": -1, "seed": seed, "num_threads": n_threads,
    }  # fmt: skip
    mean, variance = float(y.mean()), float(y.var())
    half = folds % 2 == 0
    if variance <= 1e-12 or min(half.sum(), (~half).sum()) < 2 * params["min_data_in_leaf"]:
        return np.full(len(y), mean)
    evidence = StepEvidence((y - mean) / variance, np.full(len(y), 1.0 / variance))
    values = [raw[feature.name] for feature in spec.numbers()]
    for feature in spec.categories():
        categories = Categories.of(feature.name, raw[feature.name], min_count=2)
        values.append(effect_column(categories, evidence, OtherFolds(folds)).values)
    matrix = np.column_stack(values)
    matrix = matrix[:, ~np.isnan(matrix).all(axis=0)]  # a feature that the log never has says nothing
    found = np.full(len(y), mean)
    if not (np.nanmax(matrix, axis=0) > np.nanmin(matrix, axis=0)).any():
        return found
    for learn, tell in ((half, ~half), (~half, half)):
        booster = lgb.train(params, lgb.Dataset(matrix[learn], y[learn]), num_boost_round=_ROUNDS)
        found[tell] = booster.predict(matrix[tell], num_threads=n_threads)
    return found
