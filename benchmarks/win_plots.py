"""What people look at: landscapes, one auction's surplus curve, regret by segment. Saved as PNG."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.win_curves import Policy
from benchmarks.win_real import RealAuctions
from benchmarks.win_worlds import Experiment
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.fit.win_baselines import EmpiricalWinRate

matplotlib.use("Agg")

_POINTS = 120


def plot_landscapes(policies: dict[str, Policy], experiment: Experiment, segment: str, path: Path) -> None:
    """P(win | bid), averaged over the auctions of a segment: the truth, the models; the four largest segments."""
    log, truth = experiment.test.log, experiment.test.truth
    figure = Figure(figsize=(10.0, 7.0), layout="constrained")
    for ax, name in zip(figure.subplots(2, 2).flat, log[segment].value_counts().index[:4], strict=False):
        rows = np.flatnonzero((log[segment] == name).to_numpy())[:300]
        X, of_rows = log.iloc[rows], truth[rows]
        bids = np.geomspace(0.05, 20.0, _POINTS)
        ax.plot(bids, [of_rows.win_rate(b).mean() for b in bids], "k--", label="truth")
        for label, policy in policies.items():
            ax.plot(bids, [policy.win_rate(X, np.full(len(X), b)).mean() for b in bids], label=label)
        ax.set(xscale="log", xlabel="bid, CPM", ylabel="P(win)", title=f"{segment} = {name}")
        ax.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def plot_real_landscape(policies: dict[str, Policy], auctions: RealAuctions, path: Path) -> None:
    """Predicted and Kaplan–Meier landscapes against the known prices of the held-out real auctions."""
    X, price = auctions.test, np.sort(auctions.price_cpm)
    bids = np.linspace(0.01, 3.0, _POINTS)
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    ax = figure.subplots()
    ax.plot(
        bids, np.searchsorted(price, bids, side="right") / len(price), "k--", label="known prices, held out"
    )
    kaplan_meier = EmpiricalWinRate(auctions.spec).fit(
        auctions.train, MarketPriceObservations.from_log(auctions.train)
    )
    ax.step(bids, [kaplan_meier.predict_win_rate(X.head(1), b)[0] for b in bids], label="Kaplan–Meier, train")
    for label, policy in policies.items():
        ax.plot(bids, [policy.win_rate(X, np.full(len(X), b)).mean() for b in bids], label=label)
    ax.set(xlabel="bid, CNY CPM", ylabel="P(win)", title="iPinYou 2259")
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=120)


def plot_surplus_curves(policy: Policy, experiment: Experiment, path: Path) -> None:
    """(v − b) F(b) of six auctions, true and predicted, with the bid chosen and the best one."""
    log, truth, value = experiment.test.log, experiment.test.truth, experiment.value_cpm
    rows = np.argsort(-experiment.oracle_cpm)[:: len(log) // 12][:6]
    figure = Figure(figsize=(11.0, 6.5), layout="constrained")
    for ax, row in zip(figure.subplots(2, 3).flat, rows, strict=True):
        v = value[row]
        bids = np.linspace(0.02, 1.0, _POINTS) * v
        X = log.iloc[np.repeat(row, _POINTS)]
        of_row = truth[np.repeat(row, _POINTS)]
        ax.plot(bids, of_row.expected_surplus_cpm(v, bids), "k--", label="truth")
        ax.plot(
            bids,
            np.where(bids >= truth.floor_cpm[row], (v - bids) * policy.win_rate(X, bids), 0.0),
            label="model",
        )
        one = log.iloc[[row]]
        ax.axvline(
            policy.bid_cpm(one, value[[row]], truth.floor_cpm[[row]])[0], color="C0", lw=1.0, label="bid"
        )
        ax.axvline(truth[[row]].optimal_bid_cpm(v)[0], color="k", lw=1.0, ls=":", label="best bid")
        ax.set(xlabel="bid, CPM", ylabel="expected surplus, CPM", title=f"value {v:.2f}")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def plot_regret(bids: dict[str, Doubles], experiment: Experiment, segment: str, path: Path) -> None:
    """Share of the oracle's surplus lost: in the twelve largest segments, and by how often a segment was trained on."""
    log, truth = experiment.test.log, experiment.test.truth
    seen = log[segment].map(experiment.train[segment].value_counts()).fillna(0.0).to_numpy()
    largest = log[segment].value_counts().index[:12]
    edges = [0, 10, 30, 100, 300, 1000, 10**9]
    figure = Figure(figsize=(12.0, 5.0), layout="constrained")
    by_name, by_count = figure.subplots(1, 2)
    width = 0.8 / len(bids)
    for i, (label, bid) in enumerate(bids.items()):
        lost = experiment.oracle_cpm - truth.expected_surplus_cpm(experiment.value_cpm, bid)
        groups = [(log[segment] == name).to_numpy() for name in largest]
        by_name.bar(
            np.arange(len(groups)) + i * width,
            [_share(lost, experiment, g) for g in groups],
            width,
            label=label,
        )
        groups = [(seen >= low) & (seen < high) for low, high in pairwise(edges)]
        by_count.bar(np.arange(len(groups)) + i * width, [_share(lost, experiment, g) for g in groups], width)
    by_name.set_xticks(
        np.arange(len(largest)), [str(name)[-12:] for name in largest], rotation=60, fontsize=7
    )
    by_count.set_xticks(np.arange(len(edges) - 1), [f"{low}+" for low in edges[:-1]])
    by_name.set(ylabel="regret, % of the oracle's surplus", title=f"largest {segment}")
    by_count.set(xlabel=f"training rows of the {segment}", title="by evidence")
    by_name.legend()
    figure.savefig(path, dpi=120)


def _share(lost: Doubles, experiment: Experiment, rows: Doubles) -> float:
    total = float(experiment.oracle_cpm[rows].sum())
    return 100.0 * float(lost[rows].sum()) / total if total > 0.0 else 0.0
