"""What a day's rows are worth to a model that is a week old: refreshed, refitted, blended, or left alone.

    python -m benchmarks.refresh [--seeds 5] [--first-seed 1] [--days 5] [--auctions 30000] [--drift 0.15] [--json FILE]

A market whose effects walk: each day every effect keeps √(1 − drift²) of itself. A full fit on seven days is the first
champion; then, day by day, each contender learns from the newest day (the full refit from the newest seven) and is
judged on the next. Every auction of the log is an impression, so only the models differ. Excess log loss per 1,000
impressions over the true pctr's; for the win curve, surplus in % of the oracle that knows F and pctr. Mean over seeds
with 95 % intervals (Student's t), and processor seconds per update.

`blended` is LightGBM's `Booster.refit` (decay 0.9, its default) of a booster on FTRL's base (the mixed one leaves
it few trees), on its own inputs, its level then set on the same rows: what a user would take instead. `refresh` in
benchmarks/README.md has the results. The rates of `bidml.fit.refresh` were chosen on seeds 1 and 2 of an earlier form
of this world, that of categories' weights on seeds 1 to 3.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.bench_pricing import interval
from bidml.blueprint import CtrBlueprint, WinBlueprint
from bidml.contract import FeatureSpec
from bidml.features import Doubles, encode, margins, raw_columns
from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel, refresh_clicks, refresh_win_curve
from bidml.fit.calibration import calibrated, fit_calibration
from bidml.fit.win_rate import curve_of
from bidml.lightgbm_trees import head_of_booster
from bidml.pricing import optimal_bid_cpm, value_cpm
from bidml.simulate import Market, Truth, draw_world

WEEK: Final = 7
NO_MOVE: Final = 1e-9
_CLICK_EFFECTS: Final = ("app", "tag", "country", "model", "creative", "campaign_age", "category_hour")
_PRICE_EFFECTS: Final = ("app", "tag", "model", "size", "country_os", "category_size", "hour", "exchange")


@dataclass(frozen=True, eq=False)
class Day:
    """Auctions that all were shown, `clicked` drawn for each, and their truth."""

    log: pd.DataFrame
    clicked: Doubles
    truth: Truth
    spec: FeatureSpec


def days_of(market: Market, n_auctions: int, n_days: int, drift: float, seed: int) -> Iterator[Day]:
    """Days of one world whose effects walk."""
    rng = np.random.default_rng(seed)
    first = world = draw_world(replace(market, days=1.0), rng=rng)
    for day in range(n_days):
        if day:
            world = replace(
                world,
                clicks=_walked(world.clicks, first.clicks, _CLICK_EFFECTS, drift, rng),
                prices=_walked(world.prices, first.prices, _PRICE_EFFECTS, drift, rng),
                price_level=world.price_level + drift * rng.normal(),
            )
        simulation = world.simulate(n_auctions, rng=rng)
        log = simulation.log.assign(timestamp=simulation.log["timestamp"] + pd.Timedelta(days=day))
        yield Day(
            log,
            (rng.random(n_auctions) < simulation.truth.pctr).astype(float),
            simulation.truth,
            simulation.spec,
        )


def _walked(now: Any, first: Any, names: tuple[str, ...], drift: float, rng: np.random.Generator) -> Any:
    """Effects a day later, of the same spread."""
    return replace(
        now,
        **{
            name: np.sqrt(1.0 - drift**2) * getattr(now, name)
            + drift * getattr(first, name).std() * rng.normal(size=getattr(now, name).shape)
            for name in names
        },
    )


class Clicks:
    """Contenders for pctr; each holds its model from day to day."""

    def __init__(self, week: list[Day]) -> None:
        self._spec = week[0].spec
        first = self._fitted(week).to_blueprint()
        self._champion = self._fitted(week, base="linear")
        self.models = dict.fromkeys(("left alone", "level alone", "refreshed", "refitted"), first)
        self.models["blended"] = self._champion.to_blueprint()

    def learn(self, week: list[Day]) -> dict[str, float]:
        """Processor seconds of each update."""
        newest = week[-1]
        updates: dict[str, Callable[[CtrBlueprint], CtrBlueprint]] = {
            "level alone": lambda model: self._refreshed(model, newest, learning_rate=NO_MOVE),
            "refreshed": lambda model: self._refreshed(model, newest),
            "blended": lambda model: self._blended(newest),
            "refitted": lambda model: self._fitted(week).to_blueprint(),
        }
        return _timed(self.models, updates)

    def score(self, day: Day) -> dict[str, float]:
        """Excess log loss per 1,000 impressions."""
        raw, p = raw_columns(day.log, self._spec), day.truth.pctr
        entropy = -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
        found = {}
        for name, model in self.models.items():
            s = calibrated(model.calibration, margins(raw, model.head))
            found[name] = 1000.0 * float((np.logaddexp(0.0, s) - p * s - entropy).mean())
        return found

    def _fitted(self, week: list[Day], **options: str) -> ClickModel:
        log = pd.concat([day.log for day in week], ignore_index=True).drop(columns="won")
        return ClickModel(self._spec, n_jobs=1, **options).fit(
            log, np.concatenate([day.clicked for day in week])
        )

    def _refreshed(self, model: CtrBlueprint, day: Day, **options: float) -> CtrBlueprint:
        return refresh_clicks(model, day.log, day.clicked, spec=self._spec, **options)

    def _blended(self, day: Day) -> CtrBlueprint:
        """LightGBM's refit, from its own last one."""
        model, raw = self._champion, raw_columns(day.log, self._spec)
        linear = replace(self.models["blended"].head, columns=model.columns_, trees=None)
        matrix = encode(raw, linear)
        model.booster_ = model.booster_.refit(
            matrix, day.clicked, decay_rate=0.9, init_score=margins(raw, linear), num_threads=1
        )
        head = head_of_booster(
            model.booster_, model.columns_, terms=model.terms_, intercept=model.intercept_, raw=True
        )
        level = fit_calibration(margins(raw, head), day.clicked, method="platt")
        return CtrBlueprint(head, level)


class Wins:
    """Contenders for the win curve, closed first-price feedback."""

    def __init__(self, week: list[Day]) -> None:
        self._spec = week[0].spec
        self.models = dict.fromkeys(
            ("left alone", "level alone", "refreshed", "newest day alone", "refitted"), self._fitted(week)
        )

    def learn(self, week: list[Day]) -> dict[str, float]:
        newest = week[-1]
        updates: dict[str, Callable[[WinBlueprint], WinBlueprint]] = {
            "level alone": lambda model: self._refreshed(model, newest, learning_rate=NO_MOVE),
            "refreshed": lambda model: self._refreshed(model, newest),
            "newest day alone": lambda model: self._fitted(week[-1:]),
            "refitted": lambda model: self._fitted(week),
        }
        return _timed(self.models, updates)

    def score(self, day: Day) -> dict[str, float]:
        """Surplus, % of the oracle's."""
        truth, log = day.truth, day.log
        value = value_cpm(truth.pctr, log["value_per_click"].to_numpy())
        best = truth.expected_surplus_cpm(value, truth.optimal_bid_cpm(value)).mean()
        raw, found = raw_columns(log, self._spec), {}
        for name, model in self.models.items():
            bid = optimal_bid_cpm(
                value,
                curve_of(model, raw),
                floor_cpm=log["floor_cpm"].fillna(0.0).to_numpy(),
                auction_type=log["auction_type"].to_numpy(),
            )
            found[name] = 100.0 * float(truth.expected_surplus_cpm(value, bid).mean() / best)
        return found

    def _fitted(self, week: list[Day]) -> WinBlueprint:
        log = pd.concat([day.log for day in week], ignore_index=True)
        model = WinRateModel(self._spec, n_jobs=1).fit(log, MarketPriceObservations.from_log(log))
        return model.to_blueprint()

    def _refreshed(self, model: WinBlueprint, day: Day, **options: float) -> WinBlueprint:
        seen = MarketPriceObservations.from_log(day.log)
        return refresh_win_curve(model, day.log, seen, spec=self._spec, **options)


def _timed(models: dict[str, Any], updates: dict[str, Callable[[Any], Any]]) -> dict[str, float]:
    spent = {}
    for name, update in updates.items():
        began = time.process_time()
        models[name] = update(models[name])
        spent[name] = time.process_time() - began
    return spent


def run(
    kind: type[Clicks] | type[Wins], options: argparse.Namespace, seed: int
) -> dict[str, dict[str, float]]:
    """Means over the days of one world: contender → score and processor seconds."""
    days = list(days_of(Market(), options.auctions, WEEK + options.days + 1, options.drift, seed))
    contenders = kind(days[:WEEK])
    scores: dict[str, list[float]] = {name: [] for name in contenders.models}
    seconds: dict[str, list[float]] = {name: [] for name in contenders.models}
    for i in range(WEEK, len(days) - 1):
        for name, spent in contenders.learn(days[i - WEEK + 1 : i + 1]).items():
            seconds[name].append(spent)
        for name, score in contenders.score(days[i + 1]).items():
            scores[name].append(score)
    return {
        name: {"score": float(np.mean(scores[name])), "seconds": float(np.mean(seconds[name] or [0.0]))}
        for name in scores
    }


def table(title: str, worlds: list[dict[str, dict[str, float]]], unit: str) -> str:
    """Markdown: mean over worlds, interval of the mean, paired lead over the champion left alone, seconds."""
    rows = [f"{title}\n", f"| | {unit} | gain over left alone | processor s |", "|---|--:|--:|--:|"]
    alone = np.array([world["left alone"]["score"] for world in worlds])
    for name in worlds[0]:
        found = np.array([world[name]["score"] for world in worlds])
        seconds = np.mean([world[name]["seconds"] for world in worlds])
        rows.append(f"| {name} | {found.mean():.3f} | {_interval(found - alone)} | {seconds:.1f} |")
    return "\n".join(rows)


def _interval(differences: Doubles) -> str:
    return "{:+.3f} ± {:.3f}".format(*interval(differences))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1001)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--auctions", type=int, default=30_000)
    parser.add_argument("--drift", type=float, default=0.15)
    parser.add_argument("--only", choices=("clicks", "wins"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items()}}
    for name, kind, unit in (
        ("clicks", Clicks, "excess log loss per 1,000"),
        ("wins", Wins, "surplus, % of the oracle"),
    ):
        if options.only not in (None, name):
            continue
        worlds = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            worlds.append(run(kind, options, seed))
            print(
                name, seed, {who: round(world["score"], 3) for who, world in worlds[-1].items()}, flush=True
            )
        found[name] = worlds
        print(table(name, worlds, unit), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
