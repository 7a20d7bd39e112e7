"""The verdict on a challenger, from all checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.certify import DEFAULT_EVALUATORS, certify
from bidml.errors import BidmlError
from bidml.fit.maturity import Maturity
from bidml.log import price_loss
from bidml.score.reader import parse_artifact
from bidml.train.config import PricingConfig
from training.config import GateConfig
from training.gate.identity import check_identity
from training.gate.judged import Judged
from training.gate.money import check_money
from training.gate.probability import CTR, CVR, WIN_RATE, Forecasts, Segments, check_probabilities
from training.gate.verdict import Check, Checks, Verdict
from training.latency import latency_ratio

_CERTIFIED: Final = "every evaluation of the file agrees"


def judge(
    challenger: bytes,
    champion: bytes | None,
    test: pd.DataFrame,
    config: GateConfig,
    *,
    pricing: PricingConfig,
    maturity: Maturity | None = None,
) -> Verdict:
    """The verdict on `challenger` from `test`: held-out auctions in time order, a checked log (docs/auction_log.md).

    `champion`: the artifact in force, None for a first one. `pricing` gives values and caps where the log has none.
    `maturity`: how conversions arrive (`bidml.fit.maturity`); without it every click is taken for old.
    Raises for a champion or a log that cannot be used (`ArtifactError`, `SpecError`, `ConfigError`); whatever is wrong
    with the challenger is a failed check.
    """
    current = Judged(parse_artifact(champion), test) if champion is not None else None
    try:
        certificate = certify(challenger, evaluators=DEFAULT_EVALUATORS)
        candidate = Judged(parse_artifact(challenger), test, like=current)
    except BidmlError as error:
        return Verdict((Check("certificate", False, str(error), _CERTIFIED),))
    checks = Checks()
    checks.note("certificate", True, float(certificate.n_rows), _CERTIFIED)
    check_identity(checks, candidate, current, test, config)
    rng = np.random.default_rng(config.random_state)
    for forecasts in _forecasts(candidate, current, test, maturity):
        check_probabilities(checks, forecasts, config, rng)
    if candidate.pctr is not None and candidate.curve is not None:
        check_money(checks, candidate, current, test, config, pricing, rng)
    ratio, limit = latency_ratio(candidate.scorer, candidate.columns), config.max_latency_ratio
    checks.note("latency", ratio <= limit, ratio, f"at most {limit:g} times the reference workload")
    return Verdict(tuple(checks.found))


def _forecasts(
    new: Judged, old: Judged | None, test: pd.DataFrame, maturity: Maturity | None
) -> Iterator[Forecasts]:
    """Clicks of the impressions; conversions of the clicks, as known by now; wins of the auctions that were won or lost
    on price, at the bids of the log."""
    categories = [feature.name for feature in new.blueprint.spec.categories()]
    won = test["won"].to_numpy(dtype=bool) if "won" in test else np.ones(len(test), dtype=bool)
    if new.pctr is not None:
        clicked = test["clicked"].to_numpy(dtype=bool)
        before = old.pctr[won] if old is not None and old.pctr is not None else None
        cells = _segments(new, categories, won)
        weight = (old or new).stands_for(test)[won]  # who is judged does not weigh
        yield Forecasts(CTR, clicked[won], new.pctr[won], before, cells, weight)
    if new.pcvr is not None and "converted" in test:
        clicks = test["clicked"].to_numpy(dtype=bool)
        rows = test[clicks]
        converted, arrived = rows["converted"].to_numpy(dtype=bool), np.ones(len(rows))
        if maturity is not None:
            converted, arrived = maturity.converted(rows), maturity.arrived(rows)
        before = old.pcvr[clicks] * arrived if old is not None and old.pcvr is not None else None
        if converted.any():
            cells = _segments(new, categories, clicks)
            found = new.pcvr[clicks] * arrived
            ones = np.ones(len(rows))
            yield Forecasts(CVR, converted, found, before, cells, ones, few=True, seen=arrived)
    if new.curve is not None:
        counts = won | price_loss(test).to_numpy(dtype=bool)
        bid = test["bid_cpm"].to_numpy(dtype=np.float64)
        curve = old.curve if old is not None else None
        before = None if curve is None else curve.win_rate(bid)[counts]
        cells = _segments(new, categories, counts)
        ones = np.ones(int(counts.sum()))
        yield Forecasts(WIN_RATE, won[counts], new.curve.win_rate(bid)[counts], before, cells, ones)


def _segments(model: Judged, names: list[str], rows: npt.NDArray[np.bool_]) -> dict[str, Segments]:
    return {name: Segments(codes[rows], values) for name in names for codes, values in [model.codes(name)]}
