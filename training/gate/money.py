"""What the bids would do: how far they move, and what they would have earned."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from bidml.errors import ConfigError
from bidml.train.config import PricingConfig
from bidml.train.evaluate import Terms, terms_of
from training.config import GateConfig
from training.gate.judged import Judged
from training.gate.verdict import Checks
from training.referee import Opinion, Referee

_MOVED: Final = 2.0


def check_money(
    checks: Checks,
    new_model: Judged,
    old_model: Judged | None,
    test: pd.DataFrame,
    config: GateConfig,
    pricing: PricingConfig,
    rng: np.random.Generator,
) -> None:
    """Both models bid in the same auctions; without a champion it is asked only whether the challenger bids."""
    terms = terms_of(
        test,
        value_per_click=pricing.value_per_click,
        value_per_conversion=pricing.value_per_conversion,
        cap_cpm=pricing.cap_cpm,
        auction_type=pricing.default_auction_type,
    )
    if terms is None:
        raise ConfigError(
            "the gate knows what a click or a conversion is worth",
            value=None,
            remedy="set train.pricing.value_per_click or value_per_conversion",
        )
    new = new_model.bids(terms)
    no_bid = float((new <= 0.0).mean())
    if old_model is None or old_model.pctr is None or old_model.curve is None:
        checks.note("share without a bid", no_bid < 1.0, no_bid, "below 1")
        return
    old = old_model.bids(terms)
    was = float((old <= 0.0).mean())
    limit = was + config.max_no_bid_increase
    checks.note("share without a bid", no_bid <= limit, no_bid, f"at most {limit:.3f}")
    shift = float(new.sum() / old.sum()) if old.sum() > 0.0 else float("inf")
    within = 1.0 / config.max_bid_ratio <= shift <= config.max_bid_ratio
    checks.note(
        "mean bid, relative to the champion's", within, shift, f"within a factor {config.max_bid_ratio:g}"
    )
    both = (new > 0.0) & (old > 0.0)
    moved = float((np.abs(np.log(new[both] / old[both])) > np.log(_MOVED)).mean()) if both.any() else 1.0
    checks.note(
        f"share of bids moved by more than a factor {_MOVED:g}",
        moved <= config.max_bid_moved,
        moved,
        f"at most {config.max_bid_moved:g}",
    )
    at_cap, was_at_cap = (float(((b > 0.0) & (b >= terms.cap_cpm)).mean()) for b in (new, old))
    limit = was_at_cap + config.max_cap_share_increase
    checks.note("share of bids at the cap", at_cap <= limit, at_cap, f"at most {limit:.3f}")
    opinions = [
        Opinion(model.pctr, model.curve, bids)
        for model, bids in ((new_model, new), (old_model, old))
        if model.pctr is not None and model.curve is not None
    ]
    lift = Referee(
        test, _click_terms(terms, new_model, old_model), opinions, stands_for=old_model.stands_for(test)
    ).lift(new, old, confidence=config.confidence, rng=rng)
    least = config.min_surplus_lift
    checks.note(
        "surplus, relative to the champion's",
        lift.low >= least,
        lift.value,
        f"certainly at least {least:+.1%}",
        lift,
    )


def _click_terms(terms: Terms, new: Judged, old: Judged) -> Terms:
    """The referee speaks clicks: what one is worth with its conversions, at the mean of both models' rates.

    Whether a rate is right is judged by the conversions themselves (`training.gate.probability`), which are too few for
    money.
    """
    if new.pcvr is None or old.pcvr is None or not terms.value_per_conversion > 0.0:
        return terms
    pcvr = 0.5 * (new.pcvr + old.pcvr)
    return replace(terms, value_per_click=terms.value_per_click + pcvr * terms.value_per_conversion)
