"""Metrics → tables of text, the same for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column heads, rows of text (the first cell names the row), and a note below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


_SCORES: Final[Mapping[str, tuple[str, str]]] = {
    "log_loss": ("log loss", ".6f"),
    "normalized_entropy": ("normalized entropy", ".4f"),
    "calibration_ratio": ("calibration ratio", ".4f"),
    "auc": ("AUC", ".4f"),
}
_MOST_FEATURES: Final = 10
_LATENCIES: Final = ("p10", "p50", "p99", "p99.9")


def tables_of(metrics: Mapping[str, Any], *, currency: str) -> list[Table]:
    """One table per part of `metrics` (see `bidml.train.evaluate`), in reading order."""
    makers: Mapping[str, Callable[[Mapping[str, Any]], Table]] = {
        "ctr": _ctr,
        "cvr": _cvr,
        "win": _win,
        "money": lambda money: _money(money, currency, str(metrics.get("market", ""))),
        "importance": lambda found: _importance(found, currency),
        "decisions": _decisions,
        "latency": _latency,
    }
    return [make(metrics[part]) for part, make in makers.items() if part in metrics]


def _scores(title: str, scores: Mapping[str, Mapping[str, float]], note: str) -> Table:
    return Table(
        title,
        ("", *(head for head, _ in _SCORES.values())),
        tuple(
            (name, *(format(row[key], form) for key, (_, form) in _SCORES.items()))
            for name, row in scores.items()
        ),
        note,
    )


def _ctr(scores: Mapping[str, Mapping[str, float]]) -> Table:
    return _scores("CTR on held-out impressions", scores, _excess(scores) or "lower log loss is better")


def _cvr(scores: Mapping[str, Mapping[str, float]]) -> Table:
    note = _excess(scores) or "lower log loss is better"
    return _scores("Conversions of held-out clicks, as known when logged", scores, note)


def _win(scores: Mapping[str, Mapping[str, float]]) -> Table:
    return _scores("Win rate at the logged bid, held-out auctions", scores, _excess(scores))


def _excess(scores: Mapping[str, Mapping[str, float]]) -> str:
    """How much of what can be known the model knows."""
    if "truth" not in scores:
        return ""
    model, base, truth = (scores[name]["log_loss"] for name in ("model", "base rate", "truth"))
    return (
        f"the model learnt {(base - model) / (base - truth):.1%} of what the truth knows beyond the base rate"
    )


def _richest_first(policies: Mapping[str, Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    return sorted(policies.items(), key=lambda item: -item[1]["surplus_cpm"])


def _money(policies: Mapping[str, Mapping[str, float]], currency: str, market: str) -> Table:
    rows = []
    for name, scores in _richest_first(policies):
        label = f"{name} ({scores['shade']:.2f})" if "shade" in scores else name
        rows.append(
            (
                label,
                f"{scores['surplus_cpm']:.4f} ± {scores['surplus_ci95_cpm']:.4f}",
                f"{scores['of_oracle']:.1%}",
                f"{scores['win_rate']:.1%}",
                f"{scores['spend_cpm']:.4f}",
                f"{scores['mean_bid_cpm']:.3f}",
            )
        )
    unit = f"{currency} / 1000 auctions"
    return Table(
        "Money: the same held-out auctions under each policy",
        ("policy", f"surplus, {unit}", "of the oracle", "win rate", f"spend, {unit}", "mean bid, CPM"),
        tuple(rows),
        f"market: {market}; the shade is the best in hindsight",
    )


def _importance(found: Mapping[str, Any], currency: str) -> Table:
    features = sorted(found["features"].items(), key=lambda item: -item[1]["loss_cpm"])
    rows = tuple(
        (name, f"{scores['loss_cpm']:.4f} ± {scores['loss_ci95_cpm']:.4f}")
        for name, scores in features[:_MOST_FEATURES]
    )
    note = f"on {found['n_rows']:,} held-out auctions; judged by {found['judge']}"
    return Table("Surplus lost when a feature is shuffled", ("", f"{currency} / 1000 auctions"), rows, note)


def _latency(latency: Mapping[str, Any]) -> Table:
    rows = tuple(
        (name, *(f"{values[p]:.2f}" for p in _LATENCIES))
        for name, values in latency.items()
        if name != "n_calls"
    )
    note = f"{latency['n_calls']:,} calls over distinct requests; the clock's own cost is taken off"
    return Table("Latency of one call from Python, µs", ("", *_LATENCIES), rows, note)


def _decisions(counts: Mapping[str, int]) -> Table:
    total = sum(counts.values())
    rows = tuple((name, f"{n:,}", f"{n / total:.1%}") for name, n in counts.items())
    return Table("Decisions on held-out requests, asked of the artifact", ("", "requests", "share"), rows)


def markdown(table: Table) -> str:
    """The table for a README or a log."""
    lines = [
        f"**{table.title}**",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|---" * len(table.columns) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, "", table.note] if table.note else lines)
