"""May a challenger replace the champion? Both are read as a bidder reads them, and judged on the same auctions.

Every check has a value, where it is an estimate an interval, a bound from `GateConfig`, and a verdict; one failed
check refuses. Nothing is thrown away after the first failure: all that can be computed is reported. Without a champion
the checks that compare are left out, those that judge a model by itself remain.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import special

from bidml import metrics
from bidml.blueprint import Blueprint, Head
from bidml.certify import DEFAULT_EVALUATORS, certify
from bidml.errors import BidmlError, ConfigError
from bidml.features import Doubles, RawColumns, raw_columns
from bidml.log import price_loss
from bidml.pricing import WinCurve
from bidml.resample import block_interval
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.train.config import PricingConfig
from bidml.train.evaluate import Terms, predict, terms_of
from training.config import GateConfig
from training.latency import latency_ratio
from training.referee import Opinion, Referee

_CTR: Final = "CTR"
_MOVED: Final = 2.0
_SEGMENT_ERROR: Final = 0.001  # chance that any segment of a sound model is taken for wrong


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `low` and `high` bound an estimate (None: exact); `bound` says in words what was demanded."""

    name: str
    passed: bool
    value: float | str | None
    bound: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name}: {value}{interval}, wanted {self.bound}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`promoted` when every check passed; `reasons` are those that did not."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        return [str(check) for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        rows = [{name: _plain(value) for name, value in asdict(check).items()} for check in self.checks]
        return {"promoted": self.promoted, "reasons": self.reasons, "checks": rows}


def judge(
    challenger: bytes,
    champion: bytes | None,
    test: pd.DataFrame,
    config: GateConfig,
    *,
    pricing: PricingConfig,
) -> Verdict:
    """The verdict on `challenger` from `test`: held-out auctions in time order, a checked log (docs/auction_log.md).

    `champion`: the artifact in force, None for a first one. `pricing` gives values and caps where the log has none.
    Raises for a champion or a log that cannot be used (`ArtifactError`, `SpecError`, `ConfigError`); whatever is wrong
    with the challenger is a failed check.
    """
    current = _Model(Scorer(parse_artifact(champion)), test) if champion is not None else None
    try:
        certificate = certify(challenger, evaluators=DEFAULT_EVALUATORS)
        candidate = _Model(Scorer(parse_artifact(challenger)), test, like=current)
    except BidmlError as error:
        return Verdict((Check("certificate", False, str(error), "every evaluation of the file agrees"),))
    certified = Check("certificate", True, float(certificate.n_rows), "every evaluation of the file agrees")
    return Verdict((certified, *_Comparison(candidate, current, test, config, pricing).checks()))


class _Model:
    """A scorer with what it says of the test auctions, shape (n,) each."""

    def __init__(self, scorer: Scorer, test: pd.DataFrame, like: _Model | None = None) -> None:
        self.scorer = scorer
        self.blueprint: Blueprint = scorer.blueprint
        same = like is not None and like.blueprint.spec == self.blueprint.spec
        self.columns: RawColumns = (
            like.columns if like is not None and same else raw_columns(test, self.blueprint.spec)
        )
        found = predict(scorer, self.columns)
        self.pctr: Doubles | None = found.pctr
        self.curve: WinCurve | None = found.curve

    def bids(self, terms: Terms) -> Doubles:
        n = len(terms.value_per_click)
        found = {"bid_cpm": array("d", bytes(8 * n))}
        prices = {
            "value_per_click": terms.value_per_click,
            "floor_cpm": terms.floor_cpm,
            "cap_cpm": terms.cap_cpm,
            "pacing_multiplier": 1.0,
            "auction_type": terms.auction_type,
        }
        self.scorer.score_many({**self.columns, **prices}, found)
        return np.frombuffer(found["bid_cpm"])


class _Comparison:
    def __init__(
        self,
        challenger: _Model,
        champion: _Model | None,
        test: pd.DataFrame,
        config: GateConfig,
        pricing: PricingConfig,
    ) -> None:
        self._new = challenger
        self._old = champion
        self._test = test
        self._config = config
        self._pricing = pricing
        self._rng = np.random.default_rng(config.random_state)
        self._found: list[Check] = []

    def checks(self) -> tuple[Check, ...]:
        self._same_kind()
        self._age_and_size()
        self._unseen()
        test = self._test
        n = len(test)
        won = test["won"].to_numpy(dtype=bool) if "won" in test else np.ones(n, dtype=bool)
        if self._new.pctr is not None:
            clicked = test["clicked"].to_numpy(dtype=bool)
            old = self._old.pctr if self._old is not None else None
            self._probabilities(
                _CTR, clicked[won], self._new.pctr[won], None if old is None else old[won], won
            )
        if self._new.curve is not None:
            counts = won | price_loss(test).to_numpy(dtype=bool)
            bid = test["bid_cpm"].to_numpy(dtype=np.float64)
            old_curve = self._old.curve if self._old is not None else None
            before = None if old_curve is None else old_curve.win_rate(bid)[counts]
            self._probabilities(
                "win rate", won[counts], self._new.curve.win_rate(bid)[counts], before, counts
            )
        if self._new.pctr is not None and self._new.curve is not None:
            self._money()
        ratio = latency_ratio(self._new.scorer, self._new.columns)
        limit = self._config.max_latency_ratio
        self._note("latency", ratio <= limit, ratio, f"at most {limit:g} times the reference workload")
        return tuple(self._found)

    # ---- what it is ----

    def _same_kind(self) -> None:
        new = self._new.blueprint
        currency = str(self._test["currency"].iloc[0]) if "currency" in self._test else new.currency
        if self._old is not None:
            old = self._old.blueprint
            self._note(
                "currency",
                new.currency == old.currency == currency,
                new.currency,
                f"{old.currency}, as the champion",
            )
            parts = [(b.ctr is not None, b.win is not None) for b in (new, old)]
            self._note(
                "parts", parts[0] == parts[1], str(parts[0]), f"{parts[1]}: CTR, win curve, as the champion"
            )
            at = new.default_auction_type
            wanted = old.default_auction_type
            self._note("default auction type", at == wanted, str(int(at)), f"{int(wanted)}, as the champion")
            moved = _moved_sources(old, new)
            self._note(
                "sources",
                not moved,
                ", ".join(moved) or "unchanged",
                "a feature is read where the champion's is",
            )
        else:
            self._note("currency", new.currency == currency, new.currency, f"{currency}, as the log")

    def _age_and_size(self) -> None:
        """By what the artifact tells of its data."""
        new = _window_of(self._new.blueprint)
        if "timestamp" in self._test:
            first, last = self._test["timestamp"].min(), self._test["timestamp"].max()
            covers = new is not None and new[0] <= first and last <= new[1]
            self._note(
                "window", covers, _shown(new), f"from before {first} to after {last}, the held-out auctions"
            )
        if self._old is None:
            return
        old = _window_of(self._old.blueprint)
        if old is not None:
            newer = new is not None and new[1] >= old[1]
            self._note("data end", newer, _shown(new), f"not before the champion's, {old[1]}")
        rows = [b.provenance.get("n_train") for b in (self._new.blueprint, self._old.blueprint)]
        if isinstance(rows[1], int) and rows[1] > 0:
            ratio = rows[0] / rows[1] if isinstance(rows[0], int) else 0.0
            least = self._config.min_rows_ratio
            self._note("rows learnt from", ratio >= least, ratio, f"at least {least:g} times the champion's")

    def _unseen(self) -> None:
        """The share of auctions whose category a part of a model has never seen, by feature: the worst part counts."""
        for feature in self._new.blueprint.spec.categories():
            shares = _unseen_shares(self._new, feature.name)
            if not shares:
                continue
            before = _unseen_shares(self._old, feature.name) if self._old is not None else {}
            excess = {head: share - before.get(head, 0.0) for head, share in shares.items()}
            worst = max(excess, key=lambda head: excess[head])
            most = self._config.max_unseen_increase if self._old is not None else 1.0
            limit = before.get(worst, 0.0) + most
            name = f"unseen {feature.name} ({worst})"
            self._note(name, excess[worst] <= most, shares[worst], f"at most {limit:.3f} of the auctions")

    # ---- probabilities ----

    def _probabilities(self, what: str, y: Any, p: Doubles, before: Doubles | None, rows: Any) -> None:
        """Log loss and calibration of `p` (n,) on the outcomes `y`; `before` is the champion's."""
        config = self._config
        loss = _log_losses(y, p)
        base = metrics.base_rate_entropy(y) if 0 < y.sum() < len(y) else 0.0
        reference = np.full(len(y), base) if before is None else _log_losses(y, before)
        limit = config.max_log_loss_increase if what == _CTR else config.max_win_log_loss_increase
        change = block_interval(
            lambda a, b: a / b - 1.0, loss, reference, confidence=config.confidence, rng=self._rng
        )
        if before is None:
            name, bound = f"{what} log loss, relative to the base rate", f"not certainly above +{limit:.1%}"
            self._note(name, change.low <= limit, change.value, bound, change)
        else:
            name, bound = f"{what} log loss, relative to the champion", f"certainly at most +{limit:.1%}"
            self._note(name, change.high <= limit, change.value, bound, change)
            gain = float(reference.mean()) - base
            if gain < 0.0:  # the champion knows more than the base rate
                kept = (float(loss.mean()) - base) / gain
                least = config.min_information_kept
                name = f"{what} information kept of the champion's, beyond the base rate"
                self._note(name, kept >= least, kept, f"at least {least:.0%}")
            most = config.max_log_loss_decrease
            name, bound = f"{what} log loss is credible", f"not below -{most:.0%}: too good"
            self._note(name, change.value >= -most, change.value, bound)
        ratio = metrics.calibration_ratio_interval(y, p, confidence=config.confidence)
        tolerance, most = 1.0 + config.calibration_tolerance, 1.0 + config.max_calibration_error
        near = ratio.low <= tolerance and ratio.high >= 1.0 / tolerance
        self._note(
            f"{what} calibration",
            near and 1.0 / most <= ratio.value <= most,
            ratio.value,
            f"within a factor {most:g}, and not certainly beyond {tolerance:g}",
            ratio,
        )
        self._segments(what, y, p, rows)

    def _segments(self, what: str, y: Any, p: Doubles, rows: Any) -> None:
        """The worst large segment of any category, at a confidence that allows for how many are looked at."""
        least = self._config.segment_min_events
        cells = {f.name: self._new.columns[f.name][rows] for f in self._new.blueprint.spec.categories()}
        n_large = sum(int((pd.Series(p).groupby(of).sum() >= least).sum()) for of in cells.values())
        if not n_large:
            return
        tolerance = 1.0 + self._config.segment_tolerance
        worst, off = Check("", True, None, ""), 0.0
        for name, of in cells.items():
            table = metrics.calibration_by_segment(y, p, of, confidence=1.0 - _SEGMENT_ERROR / n_large)
            table = table[table["predicted"] >= least]
            excess: Doubles = np.maximum(table["low"] / tolerance, 1.0 / (table["high"] * tolerance))
            if len(table) and np.max(excess) > off:
                value, off = table.index[int(np.argmax(excess))], float(np.max(excess))
                row = table.loc[value]
                worst = Check(
                    f"{what} calibration of the worst of {n_large} segments, {name}={value}",
                    off <= 1.0,
                    float(row["calibration_ratio"]),
                    f"not certainly beyond a factor {tolerance:g}",
                    float(row["low"]),
                    float(row["high"]),
                )
        self._found.append(worst)

    # ---- money ----

    def _money(self) -> None:
        config, pricing = self._config, self._pricing
        terms = terms_of(
            self._test,
            value_per_click=pricing.value_per_click,
            cap_cpm=pricing.cap_cpm,
            auction_type=pricing.default_auction_type,
        )
        if terms is None:
            raise ConfigError(
                "the gate knows what a click is worth", value=None, remedy="set train.pricing.value_per_click"
            )
        new = self._new.bids(terms)
        no_bid = float((new <= 0.0).mean())
        if self._old is None or self._old.pctr is None or self._old.curve is None:
            self._note("share without a bid", no_bid < 1.0, no_bid, "below 1")
            return
        old = self._old.bids(terms)
        was = float((old <= 0.0).mean())
        limit = was + config.max_no_bid_increase
        self._note("share without a bid", no_bid <= limit, no_bid, f"at most {limit:.3f}")
        shift = float(new.sum() / old.sum()) if old.sum() > 0.0 else float("inf")
        within = 1.0 / config.max_bid_ratio <= shift <= config.max_bid_ratio
        self._note(
            "mean bid, relative to the champion's", within, shift, f"within a factor {config.max_bid_ratio:g}"
        )
        both = (new > 0.0) & (old > 0.0)
        moved = float((np.abs(np.log(new[both] / old[both])) > np.log(_MOVED)).mean()) if both.any() else 1.0
        self._note(
            f"share of bids moved by more than a factor {_MOVED:g}",
            moved <= config.max_bid_moved,
            moved,
            f"at most {config.max_bid_moved:g}",
        )
        at_cap, was_at_cap = (float(((b > 0.0) & (b >= terms.cap_cpm)).mean()) for b in (new, old))
        limit = was_at_cap + config.max_cap_share_increase
        self._note("share of bids at the cap", at_cap <= limit, at_cap, f"at most {limit:.3f}")
        self._surplus(terms, new, old)

    def _surplus(self, terms: Terms, new: Doubles, old: Doubles) -> None:
        assert self._old is not None
        opinions = [
            Opinion(model.pctr, model.curve, bids)
            for model, bids in ((self._new, new), (self._old, old))
            if model.pctr is not None and model.curve is not None
        ]
        referee = Referee(self._test, terms, opinions)
        ours, theirs = referee.surplus_cpm(new), referee.surplus_cpm(old)
        lift = block_interval(
            lambda a, b: np.where(b > 0.0, (a - b) / np.abs(b), np.nan),
            ours,
            theirs,
            confidence=self._config.confidence,
            rng=self._rng,
        )
        least = self._config.min_surplus_lift
        self._note(
            "surplus, relative to the champion's",
            lift.low >= least,
            lift.value,
            f"certainly at least {least:+.1%}",
            lift,
        )

    def _note(
        self,
        name: str,
        passed: Any,
        value: float | str | None,
        bound: str,
        interval: metrics.Interval | None = None,
    ) -> None:
        ends = (None, None) if interval is None else (interval.low, interval.high)
        self._found.append(Check(name, bool(passed), value, bound, *ends))


def _log_losses(y: Any, p: Doubles) -> Doubles:
    """−(y ln p + (1 − y) ln(1 − p)), (n,); a certain error costs infinity."""
    return np.asarray(-(special.xlogy(y, p) + special.xlog1py(1.0 - y, -p)))


def _unseen_shares(model: _Model, feature: str) -> dict[str, float]:
    """By head that looks the feature up: the share of auctions whose value none of the head's lookups knows."""
    if feature not in model.columns:
        return {}
    codes, values = pd.factorize(model.columns[feature])
    shares = {}
    for name, head in _heads(model.blueprint).items():
        lookups = [column.lookup for column in head.columns if column.lookup is not None] + list(head.terms)
        keys = {key for lookup in lookups if lookup.feature == feature for key in lookup.keys}
        if keys:
            unseen = np.array([value not in keys and value != "" for value in values])
            shares[name] = float(unseen[codes].mean())
    return shares


def _heads(blueprint: Blueprint) -> dict[str, Head]:
    heads = {"CTR": blueprint.ctr.head} if blueprint.ctr is not None else {}
    if blueprint.win is not None:
        heads |= {"win location": blueprint.win.location, "win slope": blueprint.win.log_slope}
    return heads


def _moved_sources(old: Blueprint, new: Blueprint) -> list[str]:
    """Features of both that are read elsewhere or as another kind: in a log they look the same, in a request not."""
    was = {feature.name: (feature.kind, feature.source) for feature in old.spec.features}
    moved = [f.name for f in new.spec.features if was.get(f.name, (f.kind, f.source)) != (f.kind, f.source)]
    return moved + (["timestamp"] if old.spec.timestamp_ms_source != new.spec.timestamp_ms_source else [])


def _window_of(blueprint: Blueprint) -> tuple[datetime, datetime] | None:
    window = blueprint.provenance.get("window")
    try:
        start, end = (datetime.fromisoformat(time) for time in window)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return None
    return None if start.tzinfo is None or end.tzinfo is None else (start, end)


def _shown(window: tuple[datetime, datetime] | None) -> str:
    return "unknown" if window is None else f"{window[0].isoformat()} to {window[1].isoformat()}"


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
