"""Load once, score many.

`Scorer.load` is slow and strict: it verifies the file, lowers it to the native engine and replays the file's own rows.
`bid`, `decide` and `best` are the hot path; they are inherited from the extension, one C call each.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from bidml.blueprint import Blueprint
from bidml.contract import (
    CVR_OUTPUTS,
    MAX_DEALS,
    PRICE_OUTPUTS,
    RISK_INPUTS,
    SD_OUTPUTS,
    AuctionType,
    FeatureSpec,
    NoBidReason,
)
from bidml.errors import ArtifactError, ConfigError, DataError
from bidml.metadata import TOLERANCE, VARIANCE_MARGINS, SelfCheck, difference
from bidml.score import _native
from bidml.score.batch import batch_arguments
from bidml.score.explanation import Explanation
from bidml.score.exploration import DEFAULT_SIGMA, Exploration
from bidml.score.raw import line_item_value
from bidml.score.reader import Artifact, parse_artifact, read_artifact
from bidml.score.telemetry import Telemetry, decisions_of, read_telemetry
from bidml.units import is_currency_code

LineItem = _native.LineItem
Decision = _native.Decision
DealDecision = _native.DealDecision
BestDecision = _native.BestDecision
BestDealDecision = _native.BestDealDecision

PARTS = ("ctr", "win")  # of an artifact that prices, at least
AMOUNTS = ("value_per_click", "value_per_conversion", "value_per_impression_cpm")  # of a line item
_PER_CONVERSION = "value_per_conversion"
_DEAL = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")
_HEADS = ("ctr", "location", "log_slope", "cvr", "variance")  # as the engine numbers them
_ISAS = ("best", "scalar", "avx2", "avx512")


class RequestError(DataError):
    """With `strict=True`: a request that the hot path would have answered with a no-bid for its content."""

    def __init__(self, reason: int) -> None:
        self.reason = NoBidReason(reason)
        super().__init__(
            "a request follows OpenRTB 2.x",
            value=self.reason.name.lower(),
            remedy="look at scorer.explain(request, line), or load without strict",
        )


class Scorer(_native.NativeScorer):
    """An artifact, ready to bid. Immutable and safe to share between threads; make it with `Scorer.load`."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        rates: Mapping[str, float] | None = None,
        strict: bool = False,
        isa: str = "best",
    ) -> None:
        try:
            # Not through super(): nanobind does not look whether the bound method that makes has got its memory.
            _native.NativeScorer.__init__(
                self,
                artifact.blueprint,
                _checked_rates(rates),
                RequestError if strict else None,
                _checked_isa(isa),
            )
        except ValueError as error:
            raise ArtifactError(
                "the native engine accepts an artifact's arrays",
                value=str(error),
                remedy="export the model again",
            ) from None
        # The tables above are the model from here on: of the blueprint, many times as large, only the outline stays.
        # It is copied, because what stays where it was made keeps all the memory around it.
        self._data, self._kept = artifact.data, None if artifact.data else artifact
        whole = artifact.blueprint
        outline = copy.deepcopy(dataclasses.replace(whole, ctr=None, win=None))
        self.sha256 = artifact.sha256[:32] + artifact.sha256[32:]
        self.currency: str = outline.currency
        self.spec: FeatureSpec = outline.spec
        self.provenance: Mapping[str, Any] = outline.provenance
        self.parts: tuple[str, ...] = tuple(
            name
            for name, part in (("ctr", whole.ctr), ("win", whole.win), ("cvr", whole.cvr))
            if part is not None
        )
        self.knows_uncertainty: bool = whole.ctr is not None and whole.ctr.variance is not None
        self._win_family = whole.win.family if whole.win else None
        self._metrics, self._default_auction_type = outline.metrics, outline.default_auction_type
        self._feature_slots: dict[str, tuple[bool, int]] = self._slots()
        self.rates: dict[str, float] = dict(_checked_rates(rates))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        rates: Mapping[str, float] | None = None,
        strict: bool = False,
        isa: str = "best",
        self_check: bool = True,
    ) -> Scorer:
        """Read, verify and lower an artifact; replay its own rows.

        `rates`: units of the artifact's currency per unit of another, for floors in that currency. `strict` makes the
        hot path raise `RequestError` on malformed requests (tests, development). `isa` forces a kernel family
        ("scalar", "avx2", "avx512"). Raises `ArtifactError` for any file that is not wholly what it should be.
        """
        return cls.of_artifact(
            read_artifact(path), rates=rates, strict=strict, isa=isa, self_check=self_check
        )

    @classmethod
    def of_artifact(
        cls,
        artifact: Artifact,
        *,
        rates: Mapping[str, float] | None = None,
        strict: bool = False,
        isa: str = "best",
        self_check: bool = True,
    ) -> Scorer:
        """The same from an artifact that was read already; keep no reference to it, it is large."""
        scorer = cls(artifact, rates=rates, strict=strict, isa=isa)
        if self_check:
            scorer.check_itself(artifact.self_check)
        del artifact
        _native.return_free_memory()
        return scorer

    @property
    def artifact(self) -> Artifact:
        """Slow: made again from the file's bytes, as a bidder has no use for it."""
        return self._kept or parse_artifact(self._data, sha256=self.sha256)

    @property
    def blueprint(self) -> Blueprint:
        """The model in numbers; slow, as `artifact`. `spec`, `currency`, `provenance` and `parts` are at hand."""
        return self.artifact.blueprint

    @property
    def prices(self) -> bool:
        """Whether the artifact has what a bid takes: a CTR model and a win curve."""
        return set(PARTS) <= set(self.parts)

    def line_item(
        self,
        *,
        cap_cpm: float,
        value_per_click: float | None = None,
        value_per_conversion: float | None = None,
        value_per_impression_cpm: float | None = None,
        margin: float = 0.0,
        pacing_multiplier: float = 1.0,
        deals: Sequence[str] = (),
        exploration_share: float = 0.0,
        exploration_sigma: float = DEFAULT_SIGMA,
        exploration_salt: str = "",
        risk_aversion: float = 0.0,
        **fields: str | int | float,
    ) -> LineItem:
        """What we may bid for: money terms, and the fields the model reads as `line_item.<field>`, encoded once.

        An impression is worth value_per_impression_cpm + 1000 · pctr · (value_per_click + pcvr ·
        value_per_conversion): give one of these amounts, or several; the others are 0. They and `cap_cpm` are in the
        artifact's currency; `margin` in [0, 1) is kept off the value. Fields that the model does not read are kept in
        `.fields`. `pacing_multiplier` may be set later at any time. `deals`: ids of `imp.pmp.deals` that it
        may buy by, for `decide_deal` and `best_deal`.

        On `exploration_share` of the first-price auctions the bid is varied: ln bid is normal around the intended one
        with spread `exploration_sigma`, cut off outside [floor, min(cap, value)], as `bidml.pricing.explore` has it.
        Which auctions, and how far, is a keyed hash of the request's `id`, the salt and the fields: the same in every
        bidder and replay. The density of ln bid is the decision's `propensity`. A request without an id, a
        second-price auction and a deal of fixed price are never explored.

        `risk_aversion` ρ ≥ 0: an impression is worth what it is at a pctr of σ(log-odds − ρ · sd), with the standard
        deviation that the model itself gives to its log-odds. 0 is indifferent to it; a larger ρ never bids more.

        Raises `ConfigError` for a missing field or an impossible amount, `ArtifactError` when the file cannot price,
        predicts no conversions and shall pay for some, or knows no uncertainty and shall be averse to it.
        """
        if risk_aversion and not self.knows_uncertainty:
            raise ArtifactError(
                "an artifact knows what a line item is averse to: risk needs a CTR model with its uncertainty",
                value=f"risk_aversion={risk_aversion!r}",
                remedy="train with ctr.uncertainty, or leave risk_aversion at 0",
            )
        if value_per_conversion and self.parts == PARTS:
            raise ArtifactError(
                "an artifact predicts what a line item pays for: conversions need a CVR model",
                value=f"value_per_conversion={value_per_conversion!r}, parts {list(self.parts)}",
                remedy="train with [cvr], or state what a click is worth",
            )
        given = (value_per_click, value_per_conversion, value_per_impression_cpm)
        exploration = Exploration(exploration_share, exploration_sigma, exploration_salt)
        return self._made(
            given, cap_cpm, margin, pacing_multiplier, deals, exploration, risk_aversion, fields
        )

    def bound_line_item(
        self,
        *,
        cap_cpm: float,
        margin: float = 0.0,
        pacing_multiplier: float = 1.0,
        deals: Sequence[str] = (),
        exploration_share: float = 0.0,
        exploration_sigma: float = DEFAULT_SIGMA,
        exploration_salt: str = "",
        risk_aversion: float = 0.0,
        **terms: Any,
    ) -> LineItem:
        """`line_item`, also where this model lacks a part that it takes: that never bids.

        For a line item that outlives a model. The reason is `NO_CONVERSION_MODEL` where conversions are to be paid for,
        `NO_UNCERTAINTY_MODEL` where there is an aversion to risk: bids that ignore it would be above those meant.
        """
        given = tuple(terms.pop(name, None) for name in AMOUNTS)
        exploration = Exploration(exploration_share, exploration_sigma, exploration_salt)
        return self._made(given, cap_cpm, margin, pacing_multiplier, deals, exploration, risk_aversion, terms)

    def _made(
        self,
        given: tuple[float | None, ...],
        cap_cpm: float,
        margin: float,
        pacing_multiplier: float,
        deals: Sequence[str],
        exploration: Exploration,
        risk_aversion: float,
        fields: Mapping[str, str | int | float],
    ) -> LineItem:
        """`given`: the amounts of `AMOUNTS`."""
        if not self.prices:
            raise ArtifactError(
                "an artifact that prices has a CTR model and a win curve",
                value="ctr only" if "ctr" in self.parts else "win curve only",
                remedy="use score_many for its outputs, or train both",
            )
        if all(amount is None for amount in given):
            raise ConfigError(
                f"a line item is worth something: one of {list(AMOUNTS)}", value=None, remedy="give one"
            )
        of_click, of_conversion, of_impression = (
            0.0 if amount is None else _checked_amount(name, amount)
            for name, amount in zip(AMOUNTS, given, strict=True)
        )
        cap_cpm = _checked_amount("cap_cpm", cap_cpm, above=0.0)
        pacing_multiplier = _checked_amount("pacing_multiplier", pacing_multiplier)
        margin = _checked_amount("margin", margin, below=1.0)
        categories: list[tuple[int, str]] = []
        numbers: list[tuple[int, float]] = []
        for feature in self.spec.features:
            if not feature.source.startswith("line_item."):
                continue
            field = feature.source.removeprefix("line_item.")
            if field not in fields:
                raise ConfigError(
                    f"a line item gives every field that the model reads; {field} is one",
                    value=sorted(fields),
                    remedy=f"pass {field}=...",
                )
            value = line_item_value(feature.kind, fields[field])
            slot = self._feature_slots[feature.name][1]
            if isinstance(value, str):
                categories.append((slot, value))
            else:
                numbers.append((slot, value))
        line = self._line_item(
            categories,
            numbers,
            of_click * (1.0 - margin),
            cap_cpm,
            pacing_multiplier,
            of_conversion * (1.0 - margin),
            of_impression * (1.0 - margin),
            _checked_deals(deals),
            exploration.share,
            exploration.sigma,
            *(exploration.key(fields) if exploration.share else (0, 0)),
            _checked_amount("risk_aversion", risk_aversion),
        )
        line.deals = tuple(deals)
        line.exploration = exploration
        line.fields = dict(fields)
        line.margin = margin
        return line

    def explain(
        self, request: object, line: LineItem, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> Explanation:
        """The same decision as `bid`, with every step. Allocates; not for the hot path."""
        return self._explained(self._explain(request, line, imp, soft_floor_cpm, False), line, soft_floor_cpm)

    def explain_deal(
        self, request: object, line: LineItem, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> Explanation:
        """The same decision as `decide_deal`: its `deal`, that one's floor and auction type (None: a fixed price)."""
        return self._explained(self._explain(request, line, imp, soft_floor_cpm, True), line, soft_floor_cpm)

    def _explained(self, found: dict[str, Any], line: LineItem, soft_floor_cpm: float | None) -> Explanation:
        categories, numbers = found.pop("raw", ((), ()))
        features: dict[str, str | float] = {}
        for feature in self.spec.features:
            if feature.source.startswith("line_item."):
                features[feature.name] = line_item_value(
                    feature.kind, line.fields.get(feature.source.removeprefix("line_item."))
                )
            elif categories or numbers:
                is_category, slot = self._feature_slots[feature.name]
                features[feature.name] = categories[slot] if is_category else numbers[slot]
        at = found.pop("auction_type")
        return Explanation(
            **{**found, "reason": NoBidReason(found["reason"])},
            auction_type=AuctionType(at) if at in (1, 2) else None,
            features=features,
            cap_cpm=line.cap_cpm,
            value_per_click=line.value_per_click,
            value_per_conversion=line.value_per_conversion,
            value_per_impression_cpm=line.value_per_impression_cpm,
            currency=self.currency,
            margin=line.margin,
            risk_aversion=line.risk_aversion,
            soft_floor_cpm=soft_floor_cpm,
        )

    def bid_many(self, columns: Mapping[str, Any], *, out: Any) -> None:
        """Bids for a batch, into the caller's buffer of doubles; the GIL is released. See `score_many`.

        These are intended bids, none is varied: a batch knows no auction's id, which exploration is random by.
        `bidml.pricing.explore_by_id` varies them afterwards.
        """
        self.score_many(columns, {"bid_cpm": out})

    def score_many(self, columns: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Score a batch of raw features into the caller's buffers.

        `columns`: every feature of the spec (category: a sequence of str, "" missing; number: a buffer or a sequence
        of doubles, NaN missing) and, for `bid_cpm` and `win_rate`, the price inputs (a number, or one per row); of
        these `contract.GOAL_INPUTS` and `RISK_INPUTS` are 0 where not given. `outputs`: name → writable contiguous
        buffer of one double per row; names of `BATCH_OUTPUTS`. The GIL is released. Raises `DataError` for a missing
        column, an unequal length, another type or an unknown output.
        """
        self._score(columns, outputs, counted=True)

    def _score(self, columns: Mapping[str, Any], outputs: Mapping[str, Any], *, counted: bool) -> None:
        priced = not set(PRICE_OUTPUTS).isdisjoint(outputs)
        if priced and not self.prices:
            raise DataError(
                "bids need an artifact with a CTR model and a win curve",
                value=sorted(outputs),
                remedy="ask for less",
            )
        if "cvr" not in self.parts and (
            (priced and self._is_given(_PER_CONVERSION, columns)) or not set(CVR_OUTPUTS).isdisjoint(outputs)
        ):
            raise DataError(
                "conversions need an artifact with a CVR model",
                value=sorted(outputs),
                remedy="train with [cvr], or ask for less",
            )
        if not self.knows_uncertainty and (
            (priced and self._is_given(RISK_INPUTS[0], columns))
            or not {*SD_OUTPUTS, *VARIANCE_MARGINS}.isdisjoint(outputs)
        ):
            raise DataError(
                "an aversion to risk needs an artifact that knows its uncertainty",
                value=sorted(outputs),
                remedy="train with ctr.uncertainty, or ask for less",
            )
        arguments = batch_arguments(self.spec, self._feature_slots, columns, outputs)
        try:
            n_rows, categories, numbers, prices, outs = arguments
            # Not with *arguments: that would make a bound method, see __init__.
            self._score_many(n_rows, categories, numbers, prices, outs, counted)
        except ValueError as error:
            raise DataError(
                "a batch is what the engine reads", value=str(error), remedy="see score_many"
            ) from None

    def _is_given(self, name: str, columns: Mapping[str, Any]) -> bool:
        """As a price input: a model without it may read a feature of that name."""
        return name in columns and name not in self._feature_slots

    def info(self) -> dict[str, Any]:
        """What is loaded: identity, contract, provenance, and how each head runs ("path") and why not faster."""
        heads = self._engine_info()
        return {
            "sha256": self.sha256,
            "currency": self.currency,
            "features": list(self.spec.names),
            "default_auction_type": int(self._default_auction_type),
            "provenance": dict(self.provenance),
            "metrics": dict(self._metrics),
            "engine": {
                **heads,
                "heads": dict(zip(_HEADS, heads["heads"], strict=False)),
            },
        }

    def counters(self) -> dict[str, int]:
        """Decisions so far by `NoBidReason` name in lower case; "bid" counts the bids. Replayed rows do not count."""
        return decisions_of(self._counts())

    def telemetry(self) -> Telemetry:
        """What this scorer has done so far: decisions, distributions, features not found. For a monitor."""
        return read_telemetry(self._telemetry(), self._feature_slots)

    def check_itself(self, check: SelfCheck | None = None) -> None:
        """Replay the artifact's self-check rows, or `check`; raises `ArtifactError` at the first difference."""
        check = check or self.artifact.self_check
        n_rows = check.n_rows
        found = {name: array("d", bytes(8 * n_rows)) for name in check.expected}
        self._score(check.columns, found, counted=False)
        for name, expected in check.expected.items():
            for row, (want, have) in enumerate(zip(expected, found[name], strict=True)):
                if not difference(name, want, have, family=self._win_family) <= TOLERANCE:
                    raise ArtifactError(
                        f"an artifact reproduces its own rows: {name}, row {row}, is {want!r}",
                        value=have,
                        remedy="the file or this build is damaged: do not bid with it, run bidml verify",
                    )


def _checked_rates(rates: Mapping[str, float] | None) -> list[tuple[str, float]]:
    for code, rate in (rates or {}).items():
        if not (is_currency_code(code) and 0.0 < _number(rate) < math.inf):
            raise ConfigError(
                "a rate is a positive number for a currency code",
                value=(code, rate),
                remedy='for example {"EUR": 1.08}',
            )
    return [(code, float(rate)) for code, rate in (rates or {}).items()]


def _checked_deals(deals: Sequence[str]) -> list[str]:
    is_list = not isinstance(deals, str) and len(deals) <= MAX_DEALS
    if not (is_list and all(isinstance(deal, str) and _DEAL.fullmatch(deal) for deal in deals)):
        raise ConfigError(
            f"deals are at most {MAX_DEALS} ids: text of 1 to 256 characters, no control characters",
            value=deals,
            remedy='for example deals=["PMP-1042"]',
        )
    return list(deals)


def _checked_isa(isa: str) -> str:
    if isa not in _ISAS or not _native.isa_available(isa):
        raise ConfigError(
            f"isa is one of {list(_ISAS)} that this machine has", value=isa, remedy='use "best"'
        )
    return isa


def _checked_amount(
    name: str, amount: object, *, above: float = -math.ulp(0.0), below: float = math.inf
) -> float:
    number = _number(amount)
    if not above < number < below:
        least = "above 0" if above == 0.0 else "at least 0"
        raise ConfigError(
            f"{name} is a number, {least} and below {below:g}", value=amount, remedy=f"correct {name}"
        )
    return number


def _number(value: object) -> float:
    """NaN for what is no number, or beyond a double."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
