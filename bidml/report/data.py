"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bidml.certify import Certificate
from bidml.features import Doubles
from bidml.pricing import WinCurve


@dataclass(frozen=True, slots=True, eq=False)
class Duel:
    """Champion and challenger in the same auctions, in order of time; each array has shape (n_auctions,), CPM."""

    champion_bid_cpm: Doubles
    challenger_bid_cpm: Doubles
    champion_surplus_cpm: Doubles
    challenger_surplus_cpm: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """`test` is the held-out log; `pctr`, `curve`, `value_cpm` and `bid_cpm`, each (n_test,), belong to its rows.

    `train`: the auctions learnt from, for what is drawn over time. `psi`: drift of each feature since the champion's
    training. `checks`: the gate's, as in `gate.json`: `name`, `passed`, `value`, `bound`, `low`, `high`.
    """

    title: str
    currency: str
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    quarantine: Mapping[str, Any]
    certificate: Certificate
    test: pd.DataFrame
    pctr: Doubles | None = None
    curve: WinCurve | None = None
    value_cpm: Doubles | None = None
    bid_cpm: Doubles | None = None
    train: pd.DataFrame | None = None
    psi: Mapping[str, float] = field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()
    duel: Duel | None = None
