"""What a replay found, with its unit, its bounds and what they mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number of which the log tells only that it lies in [lower, upper]; `estimate` is None without a win curve."""

    lower: float
    estimate: float | None
    upper: float

    def __contains__(self, x: float) -> bool:
        return self.lower <= x <= self.upper

    @property
    def is_known(self) -> bool:
        return self.lower == self.upper

    def per(self, n: float) -> Bounded:
        """Divided by `n` > 0."""
        return Bounded(self.lower / n, None if self.estimate is None else self.estimate / n, self.upper / n)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """A policy in the auctions of a log.

    `wins` in impressions; `spend`, `value` and `surplus` = value − spend in units of `currency` (not CPM); `clicks`
    are those seen where the log won too, else expected ones (pctr). `n_unknown`: bids, of `bids`, of which the log does
    not tell whether they win. `ended_at`: the auctions before the budget ended the bidding. `rigorous`: lower and upper
    enclose what would have happened; with a pacer they are scenarios (all open auctions lost, all won), since its
    multiplier reacts to them. All assume that competitors would not have reacted.
    """

    currency: str
    n_auctions: int
    n_unknown: int
    bids: Bounded
    wins: Bounded
    spend: Bounded
    value: Bounded
    surplus: Bounded
    clicks: Bounded
    clicks_seen: int
    ended_at: Bounded
    budget: float | None
    rigorous: bool

    @property
    def win_rate(self) -> Bounded:
        """Wins per auction with a bid; 0 without bids."""
        wins, bids = self.wins, self.bids
        middle = (
            None
            if wins.estimate is None or bids.estimate is None
            else wins.estimate / max(bids.estimate, 1.0)
        )
        return Bounded(wins.lower / max(bids.upper, 1.0), middle, min(wins.upper / max(bids.lower, 1.0), 1.0))

    @property
    def surplus_cpm(self) -> Bounded:
        """Surplus per 1,000 auctions, in `currency`."""
        return self.surplus.per(self.n_auctions / 1000.0)

    @property
    def ecpc(self) -> float | None:
        """Spend per click of the estimate, currency per click; None without an estimate or a click."""
        spend, clicks = self.spend.estimate, self.clicks.estimate
        return spend / clicks if spend is not None and clicks else None

    @property
    def censoring(self) -> str:
        """What the log leaves open, in words."""
        if self.n_unknown == 0 and self.spend.is_known:
            return "every outcome is known from the log"
        if self.n_unknown == 0:
            known = "who wins is known from the log, what second price costs is not"
        else:
            share = self.n_unknown / max(self.bids.upper, 1.0)
            known = (
                f"of {self.n_unknown:,} of {self.bids.upper:,.0f} bids ({share:.1%}) the log does not tell whether "
                "they win: bids above a lost one, or below a won one whose market price is not told"
            )
        if self.wins.estimate is None:
            return known + "; no win curve was given, so there is no estimate between the bounds"
        kind = "bounds" if self.rigorous else "scenarios (the pacer reacts to outcomes), not bounds"
        return f"{known}; lower and upper are {kind}; the estimate imputes by the win curve"

    def rows(self) -> list[tuple[str, str, Bounded]]:
        """(name, unit, number) of what is reported, in order."""
        return [
            ("bids", "auctions", self.bids),
            ("win rate", "wins / bids", self.win_rate),
            ("wins", "impressions", self.wins),
            ("clicks", "clicks", self.clicks),
            ("spend", self.currency, self.spend),
            ("value", self.currency, self.value),
            ("surplus", self.currency, self.surplus),
            ("surplus per 1,000 auctions", self.currency, self.surplus_cpm),
        ]

    def to_json(self) -> dict[str, Any]:
        """Every field, `win_rate`, `surplus_cpm`, `ecpc` and `censoring`."""
        derived = {"win_rate": asdict(self.win_rate), "surplus_cpm": asdict(self.surplus_cpm)}
        return {**asdict(self), **derived, "ecpc": self.ecpc, "censoring": self.censoring}

    def __str__(self) -> str:
        lines = [f"{'':<28}{'lower':>14}{'estimate':>14}{'upper':>14}"]
        for name, unit, x in self.rows():
            cells = (f"{_shown(v):>14}" for v in (x.lower, x.estimate, x.upper))
            lines.append(f"{name:<28}{''.join(cells)}  {unit}")
        return "\n".join([*lines, self.censoring])


def _shown(x: float | None) -> str:
    if x is None:
        return "-"
    return f"{x:,.0f}" if abs(x) >= 1000.0 else f"{x:.4g}"
