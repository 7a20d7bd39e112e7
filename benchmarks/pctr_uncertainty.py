"""Is the uncertainty of pctr honest, and does an aversion to it earn anything? On simulated auctions of known truth.

    python -m benchmarks.pctr_uncertainty [--quick] [--worlds N] [--apps N] [--campaigns N] [--ctr P]

A CTR model learns from the impressions that a confounded policy won, few clicks or more, with its level moved to that
of the traffic as `bidml train` does. Coverage: z = (predicted − true log-odds) / sd on new auctions, whose spread an
honest sd makes 1, overall and in each quarter of the auctions by sd; `ratio` is the spread of the error in the quarter
of the highest sd divided by that in the lowest. Money: first price, the true win curve, so that pctr is the only thing
that is not known; the expected surplus as a share of that of who knows it, for ρ standard deviations off the log-odds.
To be averse to what is uncertain is also to bid less everywhere: the rival of each ρ takes the mean of what it takes
off, from every auction alike. "lost" is what the wins above the true value cost. Differences to ρ = 0 are paired by
world, ± one standard error.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Final

import numpy as np
from scipy.special import logit

from bidml.features import Doubles
from bidml.fit import ClickModel
from bidml.pricing import WinCurve, cautious_pctr, optimal_bid_cpm, value_cpm
from bidml.simulate import Feedback, Market, Simulation, draw_world, one_exchange

AVERSIONS: Final = (0.0, 0.25, 0.5, 1.0)
_FIRST_SEED: Final = 100  # worlds 0 to 2 were looked at when the priors of `fit.uncertainty` were chosen
_SIZES: Final = (30_000, 100_000, 400_000)  # auctions of a log


def one(market: Market, n_train: int, seed: int, n_test: int = 40_000) -> dict[str, float]:
    """The figures of one world."""
    rng = np.random.default_rng(seed)
    world = draw_world(market, rng=rng)
    train, test = world.simulate(n_train, rng=rng), world.simulate(n_test, rng=rng)
    shown = train.log[train.log["won"]]
    model = ClickModel(train.spec, uncertainty=True, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(shown, shown["clicked"])
    model.fit_traffic_level(
        train.log,
        won=train.log["won"],
        clicked=train.log["clicked"],
        win_rate=train.truth.win_rate(train.log["bid_cpm"].to_numpy()),
    )
    log_odds, sd = model.predict_log_odds(test.log), model.predict_log_odds_sd(test.log)
    error = log_odds - logit(test.truth.pctr)
    found = {"clicks": float(shown["clicked"].sum())}
    found |= _coverage(error, sd)
    surplus, lost = _money(test, log_odds, 0.0, 0.0)
    found |= {"surplus, rho 0": surplus, "lost, rho 0": lost}
    for rho in AVERSIONS[1:]:
        for name, uncertainty in (("", sd), (", of the mean", sd.mean())):
            money = _money(test, log_odds, uncertainty, rho)
            found[f"surplus, rho {rho:g}{name}"] = money[0] - surplus
            found[f"lost, rho {rho:g}{name}"] = money[1] - lost
    return found


def _coverage(error: Doubles, sd: Doubles) -> dict[str, float]:
    z = (error - sd**2 / 2.0) / sd
    quarters = np.array_split(np.argsort(sd, kind="stable"), 4)
    found = {"mean z": float(z.mean()), "spread of z": float(z.std())}
    found["within 1 sd"] = float((np.abs(z) < 1.0).mean())
    found["within 2 sd"] = float((np.abs(z) < 2.0).mean())
    for i, rows in enumerate(quarters, 1):
        found[f"spread of z, quarter {i}"] = float(z[rows].std())
    found["error, rms"] = float(np.sqrt((error**2).mean()))
    found["sd, rms"] = float(np.sqrt((sd**2).mean()))
    found["ratio"] = float(error[quarters[3]].std() / error[quarters[0]].std())
    return found


def _money(test: Simulation, log_odds: Doubles, sd: Doubles | float, rho: float) -> tuple[float, float]:
    """Expected surplus, and what of it is lost in wins above the true value: of the oracle's surplus."""
    truth, worth = test.truth, test.log["value_per_click"].to_numpy()
    curve = WinCurve(truth.location, 1.0 / truth.scale)
    value = value_cpm(cautious_pctr(log_odds, sd, rho), worth)
    bid = optimal_bid_cpm(value, curve, floor_cpm=truth.floor_cpm)
    known = value_cpm(truth.pctr, worth)
    earned, oracle = truth.expected_surplus_cpm(known, bid), truth.oracle_surplus_cpm(known).sum()
    return float(earned.sum() / oracle), float(np.minimum(earned, 0.0).sum() / oracle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, three worlds")
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--apps", type=int, default=2_000)
    parser.add_argument("--campaigns", type=int, default=10)
    parser.add_argument("--ctr", type=float, default=0.01)
    arguments = parser.parse_args()
    market = Market(
        exchanges=one_exchange(Feedback.WINS),
        n_apps=arguments.apps,
        n_campaigns=arguments.campaigns,
        base_ctr=arguments.ctr,
    )
    sizes, n_worlds = (_SIZES[:1], 3) if arguments.quick else (_SIZES, arguments.worlds)
    columns = {n: [one(market, n, _FIRST_SEED + seed) for seed in range(n_worlds)] for n in sizes}
    print(f"| mean of {n_worlds} worlds | " + " | ".join(f"{n:,} auctions" for n in columns) + " |")
    print("|---" + "|--:" * len(columns) + "|")
    for name in next(iter(columns.values()))[0]:
        cells = []
        for worlds in columns.values():
            values = np.array([world[name] for world in worlds])
            error = values.std(ddof=1) / np.sqrt(len(values))
            in_percent = name.startswith(("lost", "surplus"))
            cells.append(
                f"{100 * values.mean():.2f} ± {100 * error:.2f} %" if in_percent else f"{values.mean():.3g}"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
