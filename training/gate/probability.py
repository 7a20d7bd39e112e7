"""Are the probabilities right: log loss, information, and calibration, overall and in large segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from bidml.features import Doubles
from bidml.metrics import Interval
from bidml.resample import block_interval, percentile_interval
from training.config import GateConfig
from training.gate.verdict import Check, Checks
from training.mixture import fit_mixture

CTR: Final = "CTR"
CVR: Final = "CVR"
WIN_RATE: Final = "win rate"
_SEGMENT_ERROR: Final = 0.001  # chance that any segment of a sound model is taken for wrong
_DRAWS: Final = 2000
_LEAST_EXPECTED: Final = 1e-9
_FARTHEST: Final = 60.0  # log-odds
_NOT_TOLD_APART: Final = 1e-3  # such segments are shown only where no other is


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Rows by the value of a category: row i has `values[codes[i]]`."""

    codes: npt.NDArray[np.int64]
    values: Any

    def sums(self, of_rows: npt.ArrayLike) -> Doubles:
        """(n_values,)"""
        weights = np.asarray(of_rows, dtype=np.float64)
        return np.bincount(self.codes, weights, len(self.values)).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Of events `y` (n,): the challenger's probabilities `new`, the champion's `old`, (n,) each, None without one.

    `segments`: by category feature. `weight` (n,): for how many rows each stands. `few`: events are so few that only
    what is certain refuses. `seen` (n,): the part of the events that are known by now, of which `new` and `old` speak.
    """

    what: str
    y: npt.NDArray[np.bool_]
    new: Doubles
    old: Doubles | None
    segments: Mapping[str, Segments]
    weight: Doubles
    few: bool = False
    seen: Doubles | None = None

    def counts(self, sums: Callable[[Doubles], Any] = np.sum) -> tuple[Any, Any, Any]:
        """(events, expected by the challenger, by the champion), summed by `sums`, in units of the mean event's weight.

        A weighted Poisson count is close to a multiple of a Poisson count (Bohm and Zech 2014).
        """
        of_events = self.weight * self.y
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = sums(self.weight * of_events) / sums(of_events)
        unit = np.where(np.isfinite(unit), unit, self.weight.mean())
        old = self.new if self.old is None else self.old
        return sums(of_events) / unit, sums(self.weight * self.new) / unit, sums(self.weight * old) / unit


def check_probabilities(
    checks: Checks, forecasts: Forecasts, config: GateConfig, rng: np.random.Generator
) -> None:
    _log_loss(checks, forecasts, config, rng)
    if forecasts.few:
        _order(checks, forecasts, config)
    if forecasts.old is not None:
        _mixture(checks, forecasts, config, rng)
    _level(checks, forecasts, config)
    _segments(checks, forecasts, config)


def _log_loss(checks: Checks, f: Forecasts, config: GateConfig, rng: np.random.Generator) -> None:
    loss = f.weight * _log_losses(f.y, f.new)
    rate = float(np.average(f.y, weights=f.weight))
    base_losses = f.weight * _log_losses(f.y, np.full(len(f.y), rate))
    base = float(base_losses.mean())
    reference = np.full(len(f.y), base) if f.old is None else f.weight * _log_losses(f.y, f.old)
    limit = config.max_win_log_loss_increase if f.what == WIN_RATE else config.max_log_loss_increase
    change = block_interval(lambda a, b: a / b - 1.0, loss, reference, confidence=config.confidence, rng=rng)
    if f.old is None or f.few:
        against = "base rate" if f.old is None else "champion"
        name, bound = f"{f.what} log loss, relative to the {against}", f"not certainly above +{limit:.1%}"
        checks.note(name, change.low <= limit, change.value, bound, change)
        return
    name, bound = f"{f.what} log loss, relative to the champion", f"certainly at most +{limit:.1%}"
    checks.note(name, change.high <= limit, change.value, bound, change)
    gain = float(reference.mean()) - base
    if gain < 0.0:  # the champion knows more than the base rate
        kept = (float(loss.mean()) - base) / gain
        least = config.min_information_kept
        name = f"{f.what} information kept of the champion's, beyond the base rate"
        checks.note(name, kept >= least, kept, f"at least {least:.0%}")
    most = config.max_log_loss_decrease
    name, bound = f"{f.what} log loss is credible", f"not below -{most:.0%}: too good"
    checks.note(name, change.value >= -most, change.value, bound)


def _mixture(checks: Checks, f: Forecasts, config: GateConfig, rng: np.random.Generator) -> None:
    """The weight that outcomes give the challenger beside the champion: `training.mixture`."""
    assert f.old is not None
    mixture = fit_mixture([f.new, f.old], f.y, f.weight)
    total = float(mixture.free.sum())
    value = float(mixture.free[0]) / total if total > 0.0 else float("nan")
    found = percentile_interval(value, mixture.share(_DRAWS, rng), config.confidence)
    least = config.min_mixture_share
    checks.note(
        f"{f.what}: the challenger's part in the best mixture with the champion",
        not found.high < least,
        value,
        f"not certainly below {least:.0%}",
        found,
    )


def _order(checks: Checks, f: Forecasts, config: GateConfig) -> None:
    """Are the outcomes certainly likelier under the challenger's mirror image, which ranks the other way round?

    Both at the level of the events. Between two hypotheses few events say more than about a loss: as an e-value this
    takes a sound part for wrong with probability at most 1 - confidence, however few they are. Beside a champion whose
    order they support less there is nothing to lose.
    """
    seen = np.ones(len(f.y)) if f.seen is None else f.seen
    events = float((f.weight * f.y).sum())

    def order(p: Doubles) -> Doubles:
        chance = np.clip(p / np.maximum(seen, _LEAST_EXPECTED), _LEAST_EXPECTED, 1.0 - _LEAST_EXPECTED)
        return np.asarray(special.logit(chance) - np.average(special.logit(chance), weights=f.weight))

    def likelihood(x: Doubles) -> float:
        def missing(level: float) -> float:
            return events - float((f.weight * seen * special.expit(level + x)).sum())

        level = optimize.brentq(missing, -_FARTHEST, _FARTHEST) if missing(_FARTHEST) < 0.0 else _FARTHEST
        chance = np.clip(seen * special.expit(level + x), _LEAST_EXPECTED, 1.0 - _LEAST_EXPECTED)
        return -float((f.weight * _log_losses(f.y, chance)).sum())

    own = likelihood(order(f.new))
    evidence, least = own - likelihood(-order(f.new)), float(np.log(1.0 - config.confidence))
    holds, bound = evidence >= least, f"a log-likelihood ratio of at least {least:.1f}"
    if f.old is not None:
        holds = holds or own >= likelihood(order(f.old))
        bound = f"{bound}, or the champion's order no likelier"
    checks.note(f"{f.what}: outcomes do not speak for the opposite order", holds, evidence, bound)


def _level(checks: Checks, f: Forecasts, config: GateConfig) -> None:
    """Beside a champion a level is wrong where the events also speak for the champion's: `_speaks_for`."""
    events, expected, by_champion = (float(x) for x in f.counts())
    low, high = _ratio_intervals(np.array([expected]), np.array([events]), 1.0 - config.confidence)
    ratio = Interval(expected / events if events else float("inf"), float(low[0]), float(high[0]))
    tolerance, most = 1.0 + config.calibration_tolerance, 1.0 + config.max_calibration_error
    beyond = ratio.low > tolerance or ratio.high < 1.0 / tolerance
    nearer = ""
    if f.old is not None:
        evidence = _speaks_for(by_champion, expected, events)
        beyond = beyond and bool(evidence >= -np.log(1.0 - config.confidence))
        nearer = ", the champion being nearer"
    low_end, high_end = (ratio.high, ratio.low) if f.few else (ratio.value, ratio.value)
    checks.note(
        f"{f.what} calibration",
        not beyond and 1.0 / most <= low_end and high_end <= most,
        ratio.value,
        f"within a factor {most:g}, and not certainly beyond {tolerance:g}{nearer}",
        ratio,
    )


def _speaks_for(old: Any, new: Any, events: Any) -> Any:
    """ln of the likelihood of `events` (Poisson) when `old` are expected, over that when `new` are.

    An e-value: it exceeds ln 1/α with probability at most α where the challenger is right, however many events.
    """
    old, new = np.maximum(old, _LEAST_EXPECTED), np.maximum(new, _LEAST_EXPECTED)
    return events * np.log(old / new) - (old - new)


def _segments(checks: Checks, f: Forecasts, config: GateConfig) -> None:
    """The worst large segment of any category, at a confidence that allows for how many are looked at.

    Wrong is what lies certainly beyond the tolerance where, beside a champion, the events speak for its level.
    """
    least, tolerance = config.segment_min_events, 1.0 + config.segment_tolerance
    tables = {name: f.counts(of.sums) for name, of in f.segments.items()}
    large = {name: np.flatnonzero(expected >= least) for name, (_, expected, _) in tables.items()}
    n_large = sum(map(len, large.values()))
    if not n_large:
        return
    most = np.log(n_large / _SEGMENT_ERROR)
    worst, off = Check("", True, None, ""), -1.0
    for name, at in large.items():
        if not len(at):
            continue
        of = f.segments[name]
        events, predicted, by_champion = (column[at] for column in tables[name])
        low, high = _ratio_intervals(predicted, events, _SEGMENT_ERROR / n_large)
        excess = np.maximum(low / tolerance, 1.0 / (high * tolerance))
        told_apart = np.ones(len(at), dtype=bool)
        if f.old is not None:
            told_apart = _speaks_for(by_champion, predicted, events) >= most
        rank = np.where(told_apart, excess, excess * _NOT_TOLD_APART)
        i = int(np.argmax(rank))
        if rank[i] > off:
            off = float(rank[i])
            worst = Check(
                f"{f.what} calibration of the worst of {n_large} segments, {name}={of.values[at[i]]}",
                not (bool(told_apart[i]) and float(excess[i]) > 1.0),
                float(predicted[i] / events[i]) if events[i] else float("inf"),
                f"not certainly beyond a factor {tolerance:g}"
                + ("" if f.old is None else ", the champion being nearer"),
                float(low[i]),
                float(high[i]),
            )
    checks.found.append(worst)


def _ratio_intervals(predicted: Doubles, events: Doubles, error: float) -> tuple[Doubles, Doubles]:
    """predicted / expected events, (n,) each end: exact for Poisson counts (Garwood 1936)."""
    fewest = np.where(events > 0.0, special.gammaincinv(np.maximum(events, 1.0), error / 2.0), 0.0)
    most = special.gammaincinv(events + 1.0, 1.0 - error / 2.0)
    with np.errstate(divide="ignore"):
        return predicted / most, predicted / fewest


def _log_losses(y: Any, p: Doubles) -> Doubles:
    """−(y ln p + (1 − y) ln(1 − p)), (n,); a certain error costs infinity."""
    return np.asarray(-(special.xlogy(y, p) + special.xlog1py(1.0 - y, -p)))
