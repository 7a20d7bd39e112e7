"""Does it earn to bid on what is not known? Days of a closed loop, in which a model learns from its own wins only.

    python -m benchmarks.thompson [--regimes choice wide] [--worlds 6] [--days 10] [--first-seed 300] [--json FILE]

Each day every policy bids in the same auctions with its own model, refitted on all clicks that it has seen so far
(`uncertainty=True`, the level that of the traffic, as `bidml train` does); the first days of all were bid for by the
simulator's policy. Half of the apps and campaigns are there at the start, the others come day by day: something to
explore. First price, the true win curve, so that pctr is the only thing that is not known. In a regime with
`candidates` above 1 several campaigns may take each auction, and the one worth most, as believed, bids.

Policies price with σ(log-odds + what they add). `greedy` adds nothing; `thompson a` a·z·sd, z ~ N(0, 1) for each
auction and campaign (Chapelle & Li 2011, whose a is the root of their α); `optimism a` adds a·sd; `blind` ones take the
day's mean sd for every auction, so that they explore as much, wherever. As E σ(log-odds + a·z·sd) is above the mean by
about a factor e^(a²sd²/2), a draw is also a higher bid; `level` takes a²sd²/2 off and leaves the mean alone.
`all clicks` is greedy, shown the outcome of lost auctions too: what knowledge could be worth.

Expected surplus over all days in % of who knows pctr; common auctions, prices, z and clicks; differences to greedy are
paired by world, with 95 % intervals (Student's t). "now" is what the additions cost on the day, beside the same model
priced without them; "knowledge" is that model without them, beside greedy's. The two sum to the difference.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from benchmarks.bench_pricing import interval
from bidml.features import Doubles
from bidml.fit import ClickModel
from bidml.pricing import value_cpm
from bidml.simulate import Market, Truth, World, draw_world, one_exchange
from bidml.simulate.columns import SPEC, feature_columns
from bidml.simulate.inventory import VARIANTS, draw_traffic
from bidml.simulate.outcomes import utc
from bidml.simulate.policy import logged_bids_cpm

Codes = npt.NDArray[np.int64]
DAYS: Final = 10
_ARRIVE_LATER: Final = 0.5  # of the apps, and of the campaigns


@dataclass(frozen=True)
class Regime:
    """A market, and how much of it is ours."""

    auctions: int = 2_000  # a day
    candidates: int = 1  # campaigns that may take an auction
    warm_days: int = 2
    slope: float = 3.0
    win_rate: float = 0.1
    ctr: float = 0.02
    apps: int = 200
    campaigns: int = 20

    def market(self) -> Market:
        return Market(
            exchanges=one_exchange(),
            base_ctr=self.ctr,
            slope=self.slope,
            observed_win_rate=self.win_rate,
            n_apps=self.apps,
            n_campaigns=self.campaigns,
            days=1.0,
        )


REGIMES: Final = {
    "few": Regime(auctions=3_000),
    # a bid that is a little too low never wins, so that greed learns nothing there
    "steep": Regime(auctions=3_000, slope=10.0),
    "choice": Regime(candidates=5, win_rate=0.3, ctr=0.05),
    "more": Regime(auctions=10_000, candidates=5, win_rate=0.3, ctr=0.05),
    "wide": Regime(candidates=10, campaigns=60, apps=50, win_rate=0.2, ctr=0.05),
}


@dataclass(frozen=True)
class Policy:
    """What is added to log-odds before they are priced."""

    draw: float = 0.0  # standard deviations
    optimism: float = 0.0  # standard deviations
    blind: bool = False
    keeps_mean: bool = False
    sees_losses: bool = False

    def believed(self, log_odds: Doubles, sd: Doubles, z: Doubles) -> Doubles:
        """The log-odds to price with, of the shape of all three."""
        spread = np.full_like(sd, sd.mean()) if self.blind else sd
        added = self.optimism * spread + self.draw * z * spread
        if self.keeps_mean:
            added = added - 0.5 * (self.draw * spread) ** 2
        return log_odds + added


GREEDY: Final = "greedy"
POLICIES: Final = {
    GREEDY: Policy(),
    "thompson 0.5": Policy(draw=0.5),
    "thompson 0.5, blind": Policy(draw=0.5, blind=True),
    "thompson 1": Policy(draw=1.0),
    "thompson 0.5, level": Policy(draw=0.5, keeps_mean=True),
    "optimism 0.25": Policy(optimism=0.25),
    "optimism 0.25, blind": Policy(optimism=0.25, blind=True),
    "optimism 0.5": Policy(optimism=0.5),
    "all clicks": Policy(sees_losses=True),
}


@dataclass(frozen=True, eq=False)
class Day:
    """n auctions, each of which k campaigns may take."""

    rows: pd.DataFrame  # (n · k,) features and timestamp, candidates of an auction beside each other
    pctr: Doubles  # (n, k)
    value_per_click: Doubles  # (n, k)
    prices: Truth  # (n,); its pctr is that of the first candidate
    coin: Doubles  # (n,) a candidate that is shown is clicked where this is below its pctr
    z: Doubles  # (n, k)
    logged_bid_cpm: Doubles  # (n,) of the simulator's policy, for the first candidate

    def __len__(self) -> int:
        return len(self.coin)

    def of(self, table: Doubles, chosen: Codes) -> Doubles:
        """(n,): the chosen candidates' cells."""
        return np.take_along_axis(table, chosen[:, None], axis=1)[:, 0]

    def oracle_surplus_cpm(self) -> float:
        best = value_cpm(self.pctr, self.value_per_click).max(axis=1)
        return float(self.prices.oracle_surplus_cpm(best).sum())

    def bids(self, log_odds: Doubles) -> tuple[Codes, Doubles, float]:
        """(candidates chosen, bids, expected surplus) of who believes `log_odds` (n, k)."""
        value = value_cpm(expit(log_odds), self.value_per_click)
        chosen = value.argmax(axis=1)
        bid = self.prices.optimal_bid_cpm(self.of(value, chosen))
        known = value_cpm(self.of(self.pctr, chosen), self.of(self.value_per_click, chosen))
        return chosen, bid, float(self.prices.expected_surplus_cpm(known, bid).sum())


def days_of(regime: Regime, n_days: int, seed: int) -> Iterator[Day]:
    """Days of one world; of the apps and campaigns of the last day half are there on the first."""
    rng = np.random.default_rng(seed)
    world = draw_world(regime.market(), rng=rng)
    n_apps, n_campaigns = world.inventory.n_apps, world.inventory.n_campaigns
    app_from, campaign_from = (_arrivals(n, n_days, rng) for n in (n_apps, n_campaigns))
    for day in range(n_days):
        campaigns = np.flatnonzero(campaign_from <= day)
        yield _day(world, regime, day, app_from <= day, campaigns, rng)


def _arrivals(n: int, n_days: int, rng: np.random.Generator) -> Codes:
    later = np.arange(n) < round(_ARRIVE_LATER * n)
    return rng.permutation(np.where(later, rng.integers(1, max(n_days, 2), n), 0))


def _day(
    world: World,
    regime: Regime,
    day: int,
    here: npt.NDArray[np.bool_],
    campaigns: Codes,
    rng: np.random.Generator,
) -> Day:
    n, k, market = regime.auctions, regime.candidates, world.market
    market = replace(market, start=market.start + timedelta(days=day))
    t = draw_traffic(world.inventory, market, 4 * n, rng)
    t = t[here[t.app]]
    t = t[np.sort(rng.permutation(len(t))[:n])]
    eligible = campaigns[rng.random((n, len(campaigns))).argsort(axis=1)[:, :k]].ravel()
    each = replace(t[np.repeat(np.arange(n), k)], campaign=eligible, variant=rng.integers(0, VARIANTS, n * k))
    pctr = expit(world.click_intercept + world.clicks.log_odds(each, world.inventory)).reshape(n, k)
    worth = world.value_per_click[eligible].reshape(n, k)
    location = world.price_level + world.prices.location(t, world.inventory, 0.0)
    scale = world.prices.scale(t, world.inventory, market.slope)
    floor = world.tag_floor_cpm[t.tag]
    competition = np.exp(location + scale * world.shape.sample(rng, np.zeros(n)))
    floors = np.repeat(np.where(floor > 0.0, floor, np.nan), k)
    rows = pd.DataFrame(feature_columns(each, floors, world.inventory, market))
    believed = expit(world.click_intercept + world.clicks.believed_log_odds(each, world.inventory))
    intended = market.shading * value_cpm(believed.reshape(n, k)[:, 0], worth[:, 0])
    return Day(
        rows.assign(timestamp=utc(each.timestamp_ms)),
        pctr,
        worth,
        Truth(
            shape=world.shape,
            pctr=pctr[:, 0],
            pcvr=np.zeros(n),
            location=location,
            scale=scale,
            shape_parameter=np.zeros(n),
            floor_cpm=floor,
            auction_type=np.ones(n, dtype=np.int64),
            market_price_cpm=np.maximum(competition, floor),
            non_price_losses=np.zeros(n),
        ),
        coin=rng.random(n),
        z=rng.standard_normal((n, k)),
        logged_bid_cpm=logged_bids_cpm(intended, floor, market, rng)[0],
    )


@dataclass
class Memory:
    """What one policy has seen."""

    rows: list[pd.DataFrame] = field(default_factory=list)
    win_rate: list[Doubles] = field(default_factory=list)
    won: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    clicked: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def add(self, day: Day, chosen: Codes, bid_cpm: Doubles, *, sees_losses: bool = False) -> None:
        entered = bid_cpm > 0.0
        rate = np.ones(len(day)) if sees_losses else day.prices.win_rate(bid_cpm)
        won = np.full(len(day), sees_losses) | (bid_cpm >= day.prices.market_price_cpm)
        kept = np.flatnonzero(entered)
        self.rows.append(day.rows.iloc[(np.arange(len(day)) * day.pctr.shape[1] + chosen)[kept]])
        self.win_rate.append(rate[kept])
        self.won.append(won[kept])
        self.clicked.append((won & (day.coin < day.of(day.pctr, chosen)))[kept])

    def fit(self) -> ClickModel:
        rows = pd.concat(self.rows, ignore_index=True)
        won, clicked = np.concatenate(self.won), np.concatenate(self.clicked)
        model = ClickModel(SPEC, uncertainty=True, n_jobs=1).fit(rows[won], clicked[won])
        return model.fit_traffic_level(rows, won=won, clicked=clicked, win_rate=np.concatenate(self.win_rate))

    def copy(self) -> Memory:
        return Memory(*([*each] for each in (self.rows, self.win_rate, self.won, self.clicked)))


def run(
    regime: Regime, n_days: int, seed: int, policies: dict[str, Policy] | None = None
) -> dict[str, dict[str, float]]:
    """Of one world, by policy: surplus of all days ("earned") and without the additions ("plain"), in % of who knows
    pctr; impressions and clicks seen; the mean sd of the last day's candidates, also if their campaigns were new."""
    policies = POLICIES if policies is None else policies
    days = list(days_of(regime, regime.warm_days + n_days, seed))
    start = Memory()
    for day in days[: regime.warm_days]:
        start.add(day, np.zeros(len(day), dtype=np.int64), day.logged_bid_cpm)
    first, best = start.fit(), sum(day.oracle_surplus_cpm() for day in days[regime.warm_days :])
    found = {}
    for name, policy in policies.items():
        memory, earned, plain, model = start.copy(), 0.0, 0.0, first
        for i, day in enumerate(days[regime.warm_days :]):
            model = memory.fit() if i else first
            log_odds, sd = (
                each(day.rows).reshape(day.pctr.shape)
                for each in (model.predict_log_odds, model.predict_log_odds_sd)
            )
            chosen, bid, surplus = day.bids(policy.believed(log_odds, sd, day.z))
            earned, plain = earned + surplus, plain + day.bids(log_odds)[2]
            memory.add(day, chosen, bid, sees_losses=policy.sees_losses)
        unseen = day.rows.assign(campaign_id="never seen", creative="never seen")
        found[name] = {
            "sd": float(sd.mean()),
            "sd, unseen": float(model.predict_log_odds_sd(unseen).mean()),
            "earned": 100.0 * earned / best,
            "plain": 100.0 * plain / best,
            "impressions": float(sum(won.sum() for won in memory.won)),
            "clicks": float(sum(clicked.sum() for clicked in memory.clicked)),
        }
    return found


def table(title: str, worlds: Sequence[dict[str, dict[str, float]]]) -> str:
    """Markdown: means over worlds, differences to greedy with intervals."""
    rows = [
        f"{title}\n",
        "| | surplus | less greedy's | now | knowledge | beside blind | impressions | clicks |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    of = {
        (name, what): np.array([world[name][what] for world in worlds])
        for name in worlds[0]
        for what in worlds[0][name]
    }
    for name in worlds[0]:
        earned, plain = of[name, "earned"], of[name, "plain"]
        blind = of.get((f"{name}, blind", "earned"))
        cells = [f"{earned.mean():.2f}", signed(earned - of[GREEDY, "earned"])]
        cells += [signed(earned - plain), signed(plain - of[GREEDY, "earned"])]
        cells += ["" if blind is None else signed(earned - blind)]
        cells += [f"{of[name, what].mean():,.0f}" for what in ("impressions", "clicks")]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    sd, unseen = (of[GREEDY, what].mean() for what in ("sd", "sd, unseen"))
    rows.append(f"\ngreedy's sd on the last day {sd:.2f}, of a campaign and creative never seen {unseen:.2f}")
    return "\n".join(rows)


def signed(differences: Doubles) -> str:
    return "{:+.2f} ± {:.2f}".format(*interval(differences))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=["choice", "wide"])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=[*POLICIES])
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    policies = {name: POLICIES[name] for name in POLICIES if name in {GREEDY, *options.policies}}
    found: dict[str, Any] = {}
    for name in options.regimes:
        began, worlds = time.process_time(), []
        for seed in range(options.first_seed, options.first_seed + options.worlds):
            worlds.append(run(REGIMES[name], options.days, seed, policies))
            print(
                name, seed, {who: round(world["earned"], 2) for who, world in worlds[-1].items()}, flush=True
            )
        found[name] = worlds
        print(table(f"{name}: {REGIMES[name]}", worlds), flush=True)
        print(f"{time.process_time() - began:.0f} processor s\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
