"""Off-policy evaluation against the truth of the simulator: is the sign right, do the intervals cover?

    python -m benchmarks.bench_ope [--pairs 200] [--auctions 50000] [--worlds 0 1 ...] [--out FOLDER]
    python -m benchmarks.bench_ope --summarise FOLDER

A pair is two random policies (shade, power, a factor per exchange, on a belief about values that is itself wrong) in
one of eight worlds, evaluated on a log of its own, drawn once. The true difference is that of the expected surplus in
250,000 other auctions of the world. The evaluator sees what a real log tells (no true prices), the clicks, and a pctr
that is wrong: 15 % too high, with errors by campaign and app. Landscapes: `fitted`, a WinRateModel trained on another
log of the world; `true`, the simulator's location and scale as a log-logistic curve (right for one of four shapes);
`wrong`, the broken twin: every median 35 % too low, slopes halved. `density`: the logged density for propensity.

`sign`: share of pairs whose difference has the right sign; `cover`: share of 95 % intervals of the difference that hold
the true one, and of both policies' values; `sure_wrong`: intervals on the wrong side of 0. Pairs that differ by less
than 1 % of the logged policy's surplus have no true difference; they are drawn again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.fit import IdentifiabilityWarning, MarketPriceObservations, WinRateModel
from bidml.pricing import WinCurve
from bidml.replay import OffPolicyResult, OverlapWarning, ReplayAuctions, off_policy_value
from bidml.simulate import Market, Simulation, World, draw_world

Doubles = npt.NDArray[np.float64]

SHAPES: Final = ("log_logistic", "log_normal", "gumbel", "mixture")
SEED: Final = 81
N_TRUTH: Final = 250_000
N_FIT: Final = 60_000
N_WORLDS: Final = 8
ESTIMATORS: Final = ("dr", "snips", "ips", "dm")
LANDSCAPES: Final = ("fitted", "true", "wrong")
DENSITY: Final = "density"
_LEAST_DIFFERENCE: Final = 0.01
_BELIEF_TOO_HIGH: Final = 1.15
_TYPICAL_CPM: Final = 2.0


@dataclass(frozen=True)
class Belief:
    """The wrong pctr of evaluator and policies: a function of the features."""

    by_campaign: Doubles
    by_app: Doubles

    def pctr(self, simulation: Simulation) -> Doubles:
        codes = [_code(simulation.log[name], len(errors)) for name, errors in self._errors()]
        error = sum(errors[code] for (_, errors), code in zip(self._errors(), codes, strict=True))
        return np.minimum(_BELIEF_TOO_HIGH * simulation.truth.pctr * np.exp(error), 1.0)

    def _errors(self) -> tuple[tuple[str, Doubles], ...]:
        return ("line_item_id", self.by_campaign), ("app_bundle", self.by_app)


@dataclass(frozen=True)
class Policy:
    """bid = shade · exchange factor · value · (value / 2)^(power − 1), at least the floor; none below it."""

    shade: float
    power: float
    by_exchange: Doubles

    def bids(self, simulation: Simulation, believed_cpm: Doubles) -> Doubles:
        exchange = self.by_exchange[_code(simulation.log["exchange"], len(self.by_exchange))]
        relative = (believed_cpm / _TYPICAL_CPM) ** (self.power - 1.0)
        bid = np.minimum(self.shade * exchange * believed_cpm * relative, believed_cpm)
        floor = simulation.truth.floor_cpm
        return np.where(believed_cpm > floor, np.maximum(bid, floor), 0.0)


def draw_policy(rng: np.random.Generator) -> Policy:
    return Policy(rng.uniform(0.35, 0.9), rng.uniform(0.8, 1.2), np.exp(rng.normal(0.0, 0.15, 8)))


def draw_belief(rng: np.random.Generator) -> Belief:
    return Belief(rng.normal(0.0, 0.15, 16), rng.normal(0.0, 0.2, 64))


@dataclass(frozen=True)
class Setting:
    """A world, what is believed in it, the auctions that tell the truth, and a fitted landscape."""

    world: World
    belief: Belief
    reference: Simulation
    win_model: WinRateModel | None


def draw_setting(seed: int, shape: str, *, fit: bool = True, n_truth: int = N_TRUTH) -> Setting:
    rng = np.random.default_rng([SEED, seed])
    world = draw_world(Market(shape=shape, exploration=0.1), rng=rng)
    reference = world.simulate(n_truth, rng=rng)
    model = None
    if fit:
        past = world.simulate(N_FIT, rng=rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IdentifiabilityWarning)
            model = WinRateModel(past.spec, n_jobs=1).fit(
                past.log, MarketPriceObservations.from_log(past.log)
            )
    return Setting(world, draw_belief(rng), reference, model)


def true_surplus_cpm(setting: Setting, policy: Policy) -> Doubles:
    """Expected surplus of each reference auction, CPM, (n,)."""
    simulation = setting.reference
    worth = 1000.0 * simulation.log["value_per_click"].to_numpy()
    bids = policy.bids(simulation, worth * setting.belief.pctr(simulation))
    truth = simulation.truth
    return truth.expected_surplus_cpm(worth * truth.pctr, bids) * (1.0 - truth.non_price_losses)


def landscapes(setting: Setting, simulation: Simulation, names: tuple[str, ...]) -> dict[str, WinCurve]:
    truth = simulation.truth
    found = {
        "true": WinCurve(truth.location, 1.0 / truth.scale),
        "wrong": WinCurve(truth.location + np.log(0.65), 0.5 / truth.scale),
    }
    if setting.win_model is not None:
        found["fitted"] = setting.win_model.predict_curve(simulation.log)
    return {name: found[name] for name in names if name in found}


@dataclass(frozen=True)
class Trial:
    """One evaluation against the truth, CPM."""

    source: str
    shape: str
    truth: tuple[float, float, float]
    """a, b, a − b"""
    results: tuple[OffPolicyResult, OffPolicyResult, OffPolicyResult]

    def rows(self) -> Iterator[dict[str, Any]]:
        for estimator in ESTIMATORS:
            for what, truth, result in zip(("a", "b", "difference"), self.truth, self.results, strict=True):
                interval = getattr(result, estimator)
                yield {
                    "source": self.source,
                    "shape": self.shape,
                    "estimator": estimator,
                    "what": what,
                    "truth": truth,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "ess_share": result.ess_share,
                    "warned": bool(result.warnings),
                }


def trials(
    setting: Setting, seed: int, *, n_auctions: int, sources: tuple[str, ...] = (*LANDSCAPES, DENSITY)
) -> list[Trial]:
    """One pair of policies on one log, by every source of propensities."""
    rng = np.random.default_rng([SEED, 1, seed])
    simulation = setting.world.simulate(n_auctions, rng=rng)
    log = simulation.log.drop(columns=["true_market_price_cpm", "true_pctr"])
    believed = setting.belief.pctr(simulation)
    auctions = ReplayAuctions.from_log(log, pctr=believed)
    logged = float(np.where(log["won"], auctions.value_cpm - log["price_cpm"].fillna(0.0), 0.0).mean())
    while True:
        pair = draw_policy(rng), draw_policy(rng)
        a, b = (float(true_surplus_cpm(setting, policy).mean()) for policy in pair)
        if abs(a - b) > _LEAST_DIFFERENCE * abs(logged):
            break
    bids = [policy.bids(simulation, auctions.value_cpm) for policy in pair]
    curves = landscapes(setting, simulation, sources)
    if DENSITY in sources:
        curves[DENSITY] = curves.get(
            "fitted", WinCurve(simulation.truth.location, 1.0 / simulation.truth.scale)
        )
    found = []
    for source, curve in curves.items():
        extra: dict[str, Any] = {}
        if source == DENSITY:
            extra = {"propensity": "density", "density": log["propensity"].to_numpy()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OverlapWarning)
            results = tuple(
                off_policy_value(auctions, this, curve, rng=rng, against_cpm=other, **extra)
                for this, other in ((bids[0], None), (bids[1], None), (bids[0], bids[1]))
            )
        found.append(Trial(source, str(setting.world.market.shape), (a, b, a - b), results))  # type: ignore[arg-type]
    return found


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per source and estimator: sign, coverage, sure errors, RMSE relative to the mean absolute truth."""
    rows = rows.assign(
        right=np.sign(rows["value"]) == np.sign(rows["truth"]),
        covered=(rows["low"] <= rows["truth"]) & (rows["truth"] <= rows["high"]),
        sure_wrong=np.where(rows["truth"] > 0.0, rows["high"] < 0.0, rows["low"] > 0.0),
        error=rows["value"] - rows["truth"],
    )
    difference = rows[rows["what"] == "difference"].groupby(["source", "estimator"])
    values = rows[rows["what"] != "difference"].groupby(["source", "estimator"])
    found = pd.DataFrame(
        {
            "pairs": difference.size(),
            "sign %": 100.0 * difference["right"].mean(),
            "cover difference %": 100.0 * difference["covered"].mean(),
            "cover values %": 100.0 * values["covered"].mean(),
            "sure_wrong %": 100.0 * difference["sure_wrong"].mean(),
            "rmse % of difference": 100.0
            * difference["error"].apply(lambda e: np.sqrt((e**2).mean()))
            / difference["truth"].apply(lambda t: t.abs().mean()),
            "bias % of value": 100.0 * values["error"].mean() / values["truth"].mean(),
            "warned %": 100.0 * difference["warned"].mean(),
        }
    )
    order = [(s, e) for s in (*LANDSCAPES, DENSITY) for e in ESTIMATORS if (s, e) in found.index]
    return found.loc[order].round(1)


def run_world(world: int, n_pairs: int, n_auctions: int) -> pd.DataFrame:
    """Every N_WORLDS-th of the pairs, in one world."""
    setting = draw_setting(world, SHAPES[world % len(SHAPES)])
    rows: list[dict[str, Any]] = []
    for seed in range(world, n_pairs, N_WORLDS):
        for trial in trials(setting, seed, n_auctions=n_auctions):
            rows.extend({"pair": seed, "world": world, **row} for row in trial.rows())
    return pd.DataFrame(rows)


def _code(column: pd.Series[Any], n: int) -> npt.NDArray[np.int64]:
    """A stable number in [0, n) of each text."""
    codes, texts = pd.factorize(column)
    of_text = np.array([sum(str(text).encode()) % n for text in texts])
    return np.asarray(of_text[codes])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--auctions", type=int, default=50_000)
    parser.add_argument("--worlds", type=int, nargs="*", default=list(range(N_WORLDS)))
    parser.add_argument("--out", type=Path, help="write the estimates of each world to this folder")
    parser.add_argument("--summarise", type=Path, help="read such a folder instead")
    arguments = parser.parse_args()
    if arguments.summarise:
        found = [pd.read_json(path) for path in sorted(arguments.summarise.glob("world-*.json"))]
    else:
        found = []
        for world in arguments.worlds:
            found.append(run_world(world, arguments.pairs, arguments.auctions))
            print(f"world {world}: {SHAPES[world % len(SHAPES)]}", flush=True)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                found[-1].to_json(arguments.out / f"world-{world}.json", orient="records")
    print(summary(pd.concat(found)).to_string())


if __name__ == "__main__":
    main()
