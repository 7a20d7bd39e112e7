"""What another policy would have earned, from clicks and wins of the logged one: off-policy estimates with intervals.

An auction is deterministic: the logged bid b won or lost, and a policy without randomness leaves no propensity to
weight by. Two things can stand in for it, and each is chosen by `Propensity`.

LANDSCAPE: the price is random given the features x, so the exposure is, with probability F(b | x) for the win curve F
(Yeom et al. 2025, arXiv 2512.03354). For the target's bid b', exposures e are weighted by w = F(b' | x) / F(b | x).
With y the realised value of an exposure, v̂ its expected value, c' the price that b' pays when it wins, A the
probability that b' wins given the logged outcome (`bidml.replay.outcomes`), means over the auctions:

    DM     mean F(b')(v̂ − c')                                        the models alone
    IPS    mean w e (y − c')                                          Horvitz & Thompson 1952
    SNIPS  mean A · Σ w e (y − c') / Σ w e                            Swaminathan & Joachims 2015, over exposures
    DR     mean [ A (v̂ − c') + w e (y − v̂) ]                         after Dudík, Langford & Li 2011

DR is right when v̂ or w is right, and where b' is near b hardly needs F: A is then what was observed. Its w is bounded
(`max_weight`), which leaves v̂ uncorrected in the few auctions that the logged bid was lucky to win. All four believe F
where b' leaves the log.

DENSITY: the logged ln b was randomised with the density π(ln b | x) in the log. A kernel K of width h smooths the
target's point (Kallus & Zhou 2018, arXiv 1802.06037): w = K((ln b' − ln b) / h) / (h π), divided by the share of the
kernel above the floor. With r = e (y − c) the logged reward and q̂ = F(b)(v̂ − c):

    IPS    mean w r        SNIPS  Σ w r / Σ w        DR  mean [ q̂(b') + w (r − q̂(b)) ]

IPS and SNIPS then believe no model, at much greater variance; DR is right when π or q̂ is right, up to O(h²).

Estimates are surplus per 1,000 auctions. Intervals: block bootstrap (`bidml.resample`). They tell of the log's noise,
not of an error of F.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.errors import ConfigError, DataError
from bidml.fit.observations import Doubles
from bidml.metrics import Interval
from bidml.pricing import WinCurve
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.weighting import Side, by_density, by_landscape
from bidml.resample import BlockSums

LEAST_ESS_SHARE: Final = 0.1
"""Of the exposures (or the randomised bids): below, the weights rest on too few of them."""
MOST_UNCOVERED: Final = 0.05


class Propensity(StrEnum):
    """What stands for the probability of the logged action."""

    LANDSCAPE = "landscape"
    DENSITY = "density"


class OverlapWarning(UserWarning):
    """The log says little about the policy that is asked about."""


@dataclass(frozen=True, slots=True)
class OffPolicyResult:
    """Surplus per 1,000 auctions of a policy, or of the difference of two, by each estimator, in `currency`.

    `ess`: effective sample size (Σw)² / Σw² of the weighted exposures (LANDSCAPE) or bids (DENSITY), of `n_weighted`;
    of a comparison the smaller one. `uncovered`: the share of the target's expected wins in auctions that the logged
    bid wins with less than RARE_WIN_RATE. `warnings`: why not to believe it.
    """

    currency: str
    propensity: Propensity
    n_auctions: int
    dm: Interval
    ips: Interval
    snips: Interval
    dr: Interval
    ess: float
    n_weighted: int
    uncovered: float
    warnings: tuple[str, ...]

    @property
    def ess_share(self) -> float:
        return self.ess / max(self.n_weighted, 1)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "propensity": self.propensity.value, "ess_share": self.ess_share}

    def __str__(self) -> str:
        lines = [f"surplus per 1,000 auctions, {self.currency}, 95 % interval ({self.propensity} propensity)"]
        for name in ("dr", "snips", "ips", "dm"):
            x: Interval = getattr(self, name)
            lines.append(f"{name.upper():<6}{x.value:>12.4g}  [{x.low:.4g}, {x.high:.4g}]")
        lines.append(f"effective sample {self.ess:,.0f} of {self.n_weighted:,} ({self.ess_share:.1%})")
        return "\n".join([*lines, *self.warnings])


def off_policy_value(
    auctions: ReplayAuctions,
    bid_cpm: npt.ArrayLike,
    curve: WinCurve,
    *,
    rng: np.random.Generator,
    against_cpm: npt.ArrayLike | None = None,
    propensity: Propensity | str = Propensity.LANDSCAPE,
    density: npt.ArrayLike | None = None,
    bandwidth: float | None = None,
    max_weight: float = 10.0,
    confidence: float = 0.95,
) -> OffPolicyResult:
    """The value of bidding `bid_cpm` (n,), 0.0 for no bid, in logged `auctions`, in time order; or, with
    `against_cpm`, how much more than those bids: a paired difference, of much less noise.

    `curve` is the landscape F, one per auction or one for all, best fitted on other auctions. `auctions.value_cpm` is
    v̂, `auctions.realised_value_cpm` y. DENSITY takes `density`, the log's `propensity` column, (n,), NaN where the bid
    was not randomised (such rows are left out), and `bandwidth`, in ln CPM; default: 1.06 n^(−1/5) times the spread of
    ln b' − ln b, at most 0.2. `max_weight` bounds the w of LANDSCAPE's DR. Warns `OverlapWarning`. Raises
    `ConfigError`, `DataError`.
    """
    propensity = _propensity(propensity)
    if not 0.0 < confidence < 1.0:
        raise ConfigError("a confidence is in (0, 1)", value=confidence, remedy="0.95 is usual")
    if not max_weight >= 0.0:
        raise ConfigError("a bound of the weights is at least 0", value=max_weight, remedy="10 is usual")
    logged: Doubles | None = None
    if propensity is Propensity.DENSITY:
        auctions, curve, logged, (bid_cpm, against_cpm) = _randomised(
            auctions, curve, density, bid_cpm, against_cpm
        )
    elif density is not None or bandwidth is not None:
        raise ConfigError(
            "density and bandwidth belong to the density propensity",
            value=propensity.value,
            remedy='propensity="density"',
        )
    sides = [
        by_landscape(auctions, bids, curve, max_weight=max_weight)
        if logged is None
        else by_density(auctions, bids, curve, logged, bandwidth)
        for bids in (bid_cpm, against_cpm)
        if bids is not None
    ]
    found = _intervals(sides, confidence=confidence, rng=rng)
    result = OffPolicyResult(
        currency=auctions.currency,
        propensity=propensity,
        n_auctions=len(auctions),
        **found,
        ess=min(side.ess for side in sides),
        n_weighted=sides[0].n_weighted,
        uncovered=max(side.uncovered for side in sides),
        warnings=(),
    )
    result = replace(result, warnings=tuple(_doubts(result)))
    for text in result.warnings:
        warnings.warn(text, OverlapWarning, stacklevel=2)
    return result


def _intervals(sides: list[Side], *, confidence: float, rng: np.random.Generator) -> dict[str, Interval]:
    """Every estimator from the same bootstrap draws."""
    means = ("dm", "ips", "dr")
    columns: list[Doubles] = [np.ones(len(sides[0].dm))]
    for name in means:
        parts = [getattr(side, name) for side in sides]
        columns.append(parts[0] if len(parts) == 1 else parts[0] - parts[1])
    columns += [column for side in sides for column in (side.scale, side.weighted, side.weight)]
    sums = BlockSums.draw(columns, rng=rng)
    found = {
        name: sums.interval(_ratio, (i, 0), confidence=confidence) for i, name in enumerate(means, start=1)
    }
    statistic: Callable[..., Doubles] = _self_normalised if len(sides) == 1 else _self_normalised_difference
    ratios = range(1 + len(means), len(columns))
    return found | {"snips": sums.interval(statistic, (*ratios, 0), confidence=confidence)}


def _ratio(total: Doubles, n: Doubles) -> Doubles:
    return total / n


def _self_normalised(scale: Doubles, weighted: Doubles, weight: Doubles, n: Doubles) -> Doubles:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.asarray(weight) > 0.0, scale / n * weighted / weight, 0.0))


def _self_normalised_difference(
    scale: Doubles, weighted: Doubles, weight: Doubles,
    scale_b: Doubles, weighted_b: Doubles, weight_b: Doubles, n: Doubles,
) -> Doubles:  # fmt: skip
    return _self_normalised(scale, weighted, weight, n) - _self_normalised(scale_b, weighted_b, weight_b, n)


def _randomised(
    auctions: ReplayAuctions,
    curve: WinCurve,
    density: npt.ArrayLike | None,
    bid_cpm: npt.ArrayLike,
    against_cpm: npt.ArrayLike | None,
) -> tuple[ReplayAuctions, WinCurve, Doubles, tuple[npt.ArrayLike, npt.ArrayLike | None]]:
    """The rows whose bid was randomised."""
    n = len(auctions)
    logged = np.full(n, np.nan) if density is None else np.asarray(density, dtype=np.float64)
    if logged.shape != (n,) or (logged <= 0.0).any():
        raise DataError(
            f"the density of the logged ln bids is above 0: ({n},)", value=logged.shape, remedy="align it"
        )
    rows = np.flatnonzero(~np.isnan(logged))
    if rows.size == 0:
        raise DataError(
            "the density propensity needs randomised bids with their density",
            value="none in the log",
            remedy='explore (bidml.pricing.explore), or take propensity="landscape"',
        )
    if rows.size == n:
        return auctions, curve, logged, (bid_cpm, against_cpm)
    kept = curve if len(curve) == 1 else curve[rows]
    sides = [None if bids is None else np.asarray(bids)[rows] for bids in (bid_cpm, against_cpm)]
    return auctions[rows], kept, logged[rows], (np.asarray(sides[0]), sides[1])


def _doubts(result: OffPolicyResult) -> list[str]:
    doubts = []
    if result.ess_share < LEAST_ESS_SHARE:
        doubts.append(
            f"the weights rest on {result.ess:,.0f} of {result.n_weighted:,} "
            f"({result.ess_share:.1%}, at least {LEAST_ESS_SHARE:.0%} is asked): the policy is far from the logged "
            "one; compare nearer policies or let the bidder explore"
        )
    if result.uncovered > MOST_UNCOVERED:
        doubts.append(
            f"{result.uncovered:.1%} of the wins are expected where the logged bids hardly ever won: "
            "what they are worth is extrapolated by the models"
        )
    return doubts


def _propensity(asked: Propensity | str) -> Propensity:
    try:
        return Propensity(asked)
    except ValueError:
        raise ConfigError(
            "a propensity is of a known kind", value=asked, remedy=f"one of {[str(p) for p in Propensity]}"
        ) from None
