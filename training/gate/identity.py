"""What a challenger is, before any outcome is looked at: kind, sources, age, size, what it has never seen."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd

from bidml.blueprint import Blueprint, Head, Lookup
from training.config import GateConfig
from training.gate.judged import Judged
from training.gate.verdict import Checks

MOST_CHANGE_OF_SD: Final = 2.0


def check_identity(
    checks: Checks, new_model: Judged, old_model: Judged | None, test: pd.DataFrame, config: GateConfig
) -> None:
    _same_kind(checks, new_model, old_model, test)
    _age_and_size(checks, new_model, old_model, test, config)
    _unseen(checks, new_model, old_model, config)


def _same_kind(checks: Checks, new_model: Judged, old_model: Judged | None, test: pd.DataFrame) -> None:
    new = new_model.blueprint
    currency = str(test["currency"].iloc[0]) if "currency" in test else new.currency
    if old_model is not None:
        old = old_model.blueprint
        checks.note(
            "currency",
            new.currency == old.currency == currency,
            new.currency,
            f"{old.currency}, as the champion",
        )
        parts = [(b.ctr is not None, b.win is not None) for b in (new, old)]
        checks.note(
            "parts", parts[0] == parts[1], str(parts[0]), f"{parts[1]}: CTR, win curve, as the champion"
        )
        if old.cvr is not None:  # line items that pay for conversions would stop
            checks.note(
                "CVR model", new.cvr is not None, str(new.cvr is not None), "there, as the champion's"
            )
        _same_uncertainty(checks, new_model, old_model)
        at = new.default_auction_type
        wanted = old.default_auction_type
        checks.note("default auction type", at == wanted, str(int(at)), f"{int(wanted)}, as the champion")
        moved = _moved_sources(old, new)
        checks.note(
            "sources",
            not moved,
            ", ".join(moved) or "unchanged",
            "a feature is read where the champion's is",
        )
    else:
        checks.note("currency", new.currency == currency, new.currency, f"{currency}, as the log")


def _same_uncertainty(checks: Checks, new_model: Judged, old_model: Judged) -> None:
    """Line items averse to risk would stop without it, and bid another part of their value with another size."""
    if not old_model.scorer.knows_uncertainty:
        return
    old = _mean_sd(old_model)
    low, high = old / MOST_CHANGE_OF_SD, old * MOST_CHANGE_OF_SD
    limit = f"{low:.3f} to {high:.3f}: half to twice the champion's standard deviation"
    if not new_model.scorer.knows_uncertainty:
        checks.note("uncertainty of pctr", False, "none", limit)
        return
    new = _mean_sd(new_model)
    checks.note("uncertainty of pctr", low <= new <= high, new, limit)


def _mean_sd(model: Judged) -> float:
    found = np.empty(len(next(iter(model.columns.values()))))
    model.scorer.score_many(model.columns, {"pctr_log_odds_sd": found})
    return float(found.mean())


def _age_and_size(
    checks: Checks, new_model: Judged, old_model: Judged | None, test: pd.DataFrame, config: GateConfig
) -> None:
    """By what the artifact tells of its data."""
    new = _window_of(new_model.blueprint)
    if "timestamp" in test:
        first, last = test["timestamp"].min(), test["timestamp"].max()
        covers = new is not None and new[0] <= first and last <= new[1]
        checks.note(
            "window", covers, _shown(new), f"from before {first} to after {last}, the held-out auctions"
        )
    if old_model is None:
        return
    old = _window_of(old_model.blueprint)
    if old is not None:
        newer = new is not None and new[1] >= old[1]
        checks.note("data end", newer, _shown(new), f"not before the champion's, {old[1]}")
    rows = [b.provenance.get("n_train") for b in (new_model.blueprint, old_model.blueprint)]
    if isinstance(rows[1], int) and rows[1] > 0:
        ratio = rows[0] / rows[1] if isinstance(rows[0], int) else 0.0
        least = config.min_rows_ratio
        checks.note("rows learnt from", ratio >= least, ratio, f"at least {least:g} times the champion's")


def _unseen(checks: Checks, new_model: Judged, old_model: Judged | None, config: GateConfig) -> None:
    """The share of auctions whose category a part of a model has never seen, by feature: the worst part counts."""
    for feature in new_model.blueprint.spec.categories():
        shares = _unseen_shares(new_model, feature.name)
        if not shares:
            continue
        before = _unseen_shares(old_model, feature.name) if old_model is not None else {}
        excess = {head: share - before.get(head, 0.0) for head, share in shares.items()}
        worst = max(excess, key=lambda head: excess[head])
        most = config.max_unseen_increase if old_model is not None else 1.0
        limit = before.get(worst, 0.0) + most
        name = f"unseen {feature.name} ({worst})"
        checks.note(name, excess[worst] <= most, shares[worst], f"at most {limit:.3f} of the auctions")


def _unseen_shares(model: Judged, feature: str) -> dict[str, float]:
    """By head that looks the feature up: the share of auctions whose value none of the head's lookups knows."""
    if feature not in model.columns:
        return {}
    codes, values = model.codes(feature)
    shares = {}
    for name, head in _heads(model.blueprint).items():
        known = [
            lookup for lookup in head.lookups if isinstance(lookup, Lookup)
        ]  # a cross knows no other texts
        keys = {key for lookup in known if lookup.feature == feature for key in lookup.keys}
        if keys:
            unseen = np.array([value not in keys and value != "" for value in values])
            shares[name] = float(unseen[codes].mean())
    return shares


def _heads(blueprint: Blueprint) -> dict[str, Head]:
    heads = {"CTR": blueprint.ctr.head} if blueprint.ctr is not None else {}
    if blueprint.cvr is not None:
        heads |= {"CVR": blueprint.cvr.head}
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
