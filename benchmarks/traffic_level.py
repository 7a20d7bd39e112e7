"""The level of clicks: surplus of a CTR model that is right on impressions, and of one that is right on the traffic.

    python -m benchmarks.traffic_level [--world NAME ...] [--seed N] [--auctions N]

A world, four fifths of its log to learn from, one fifth to bid in by the fitted win curve. % of the surplus of who
knows pctr and market, before and after `fit_traffic_level`; Σ predicted / Σ true pctr on all auctions and on those
that the logging policy won. The recipe was developed on seeds 1001 and 2001; seed 3001 and the demo's were not seen.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Final

import numpy as np

from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.pricing import optimal_bid_cpm, value_cpm
from bidml.simulate import Market, simulate
from bidml.simulate.market import one_exchange

WORLDS: Final = {
    "default": Market(),
    "12 % won": Market(observed_win_rate=0.12),
    "closed": Market(exchanges=one_exchange()),
    "drift": Market(price_drift_per_day=0.05),
    "mixture": Market(shape="mixture"),
    "noise": Market(bid_noise=0.6),
    "rare": Market(base_ctr=0.003),
}
CAP_CPM: Final = 200.0


def compared(name: str, seed: int, n_auctions: int) -> str:
    """One row of the table."""
    simulation = simulate(n_auctions, market=WORLDS[name], rng=np.random.default_rng(seed))
    cut = round(0.8 * n_auctions)
    train, test = simulation.log.iloc[:cut].reset_index(drop=True), simulation[slice(cut, n_auctions)]
    shown = train[train["won"]].reset_index(drop=True)
    clicks = ClickModel(simulation.spec, n_jobs=1).fit(shown, shown["clicked"])
    wins = WinRateModel(simulation.spec, n_jobs=1).fit(train, MarketPriceObservations.from_log(train))
    curve, log, truth = wins.predict_curve(test.log), test.log, test.truth
    per_click, won = log["value_per_click"].to_numpy(), log["won"].to_numpy()
    value = value_cpm(truth.pctr, per_click)
    oracle = truth.expected_surplus_cpm(value, truth.optimal_bid_cpm(value)).mean()

    def judged() -> tuple[float, float, float]:
        pctr = clicks.predict_proba(log)[:, 1]
        bid = optimal_bid_cpm(
            value_cpm(pctr, per_click),
            curve,
            floor_cpm=log["floor_cpm"].fillna(0.0).to_numpy(),
            cap_cpm=CAP_CPM,
            auction_type=log["auction_type"].to_numpy(),
        )
        surplus = truth.expected_surplus_cpm(value, bid).mean() / oracle
        return surplus, pctr.sum() / truth.pctr.sum(), pctr[won].sum() / truth.pctr[won].sum()

    before = judged()
    chances = wins.predict_win_rate(train, train["bid_cpm"].to_numpy())
    clicks.fit_traffic_level(train, won=train["won"], clicked=train["clicked"], win_rate=chances)
    cells = [
        f"{a:{form}} → {b:{form}}" for a, b, form in zip(before, judged(), (".1%", ".2f", ".2f"), strict=True)
    ]
    return f"| {name} | {seed} | {' | '.join(cells)} | {int(train['clicked'].sum())} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", nargs="*", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--seed", type=int, default=3001)
    parser.add_argument("--auctions", type=int, default=250_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of features that a world does not have
    print(
        "| world | seed | of the oracle | ratio, all | ratio, won | clicks learnt from |\n|---|--:|---|---|---|--:|"
    )
    for name in options.world:
        print(compared(name, options.seed, options.auctions), flush=True)


if __name__ == "__main__":
    main()
