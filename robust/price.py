"""The price guard: every float32 through `native/price.h`; and random auctions against exact arithmetic.

The sweep is a C++ program of its own. The oracle decides in fractions which auctions may have a bid, with what bounds,
and what a second-price bid is to the last bit; near a boundary of rounding it allows one ulp of the value.
"""

from __future__ import annotations

import math
import os
import subprocess
from array import array
from fractions import Fraction
from typing import Any

import numpy as np

from bidml.blueprint import Blueprint, CtrBlueprint, Head, Lookup, WinBlueprint
from bidml.contract import GOAL_INPUTS, PRICE_INPUTS, Feature, FeatureKind, FeatureSpec
from robust.builds import BROKEN, HOME, ROOT, run
from robust.models import scorer_of
from robust.outcome import WHOLE, Effort, Outcome, Share

N_SETTINGS = 12


def attack(effort: Effort, rng: np.random.Generator, share: Share = WHOLE) -> Outcome:
    outcome = Outcome()
    program = _compiled()
    full = range({Effort.SHORT: 0, Effort.CI: 0, Effort.QUICK: 1, Effort.LONG: N_SETTINGS}[effort])
    for setting in range(N_SETTINGS):
        stride = 1 if setting in full else effort.of(short=999_983, ci=401, quick=1_009, long=1)
        _sweep(outcome, program, setting, stride, share)
    _oracle(outcome, rng, effort.of(short=40_000, ci=200_000, quick=1_000_000, long=20_000_000) // share.of)
    return outcome


def _compiled() -> str:
    """The sweep as a program; in a broken build, over the broken headers."""
    is_broken = "BIDML_FAULT" in os.environ
    HOME.mkdir(parents=True, exist_ok=True)
    program = HOME / ("price_sweep_broken" if is_broken else "price_sweep")
    native = BROKEN.source if is_broken else ROOT / "bidml" / "native"
    options = ["-include", str(ROOT / "robust" / "fault.h")] if is_broken else []
    partial = program.with_suffix(f".{os.getpid()}")
    command = ["g++", "-std=c++17", "-O3", "-ffp-contract=off", *options, f"-I{native}"]
    run([*command, str(ROOT / "robust" / "price_sweep.cc"), "-o", str(partial)])
    partial.replace(program)
    return str(program)


def _sweep(outcome: Outcome, program: str, setting: int, stride: int, share: Share) -> None:
    """Every `stride`-th float32; of these every `share.of`-th."""
    arguments = [str(setting), str(stride * share.of), str(stride * share.index)]
    found = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    *violations, last = found.stdout.splitlines()
    n_trials, n_bids, n_violations = map(int, last.split())
    outcome.trials += n_trials
    if n_violations:
        outcome.broke(f"setting {setting}: {n_violations} violations, the first: {violations}")
    if setting == 0:
        outcome.note(f"setting 0: {n_trials:,} model outputs, one in {stride}, {n_bids:,} bids")


def _scorer() -> Any:
    """A scorer whose pctr, pcvr and curve a batch chooses: log-odds and margins are the weights of category texts."""
    log_odds = [-700.0, -60.0, -20.0, -9.2, -4.6, -1.0, 0.0, 5.0, 40.0]
    locations, slopes = [-80.0, -5.0, 0.0, 3.0, 80.0], [-9.0, -1.0, 0.5, 3.9, 9.0]
    names = {"p": log_odds, "c": log_odds[1:-1], "m": locations, "k": slopes}
    spec = FeatureSpec(tuple(Feature(name, FeatureKind.CATEGORY, f"ext.{name}") for name in names))
    heads = {
        name: Head((), None, (Lookup(name, tuple(map(str, range(len(x)))), array("d", x), 0.0),))
        for name, x in names.items()
    }
    win = WinBlueprint(heads["m"], heads["k"], 0.5, 1.1, 0.2, 1.3)
    blueprint = Blueprint(spec, CtrBlueprint(heads["p"]), win, "USD", cvr=CtrBlueprint(heads["c"]))
    return scorer_of(blueprint), {name: len(x) for name, x in names.items()}


def _oracle(outcome: Outcome, rng: np.random.Generator, n: int) -> None:
    scorer, sizes = _scorer()
    at_once = min(n, 20_000)
    special = np.array([0.0, -0.0, 1.0, 5e-324, 1e-308, 1e308, np.inf, -np.inf, np.nan, -1.0])
    for _ in range(n // at_once):
        money = {}
        for name in (*PRICE_INPUTS[:4], *GOAL_INPUTS):
            x = np.exp(rng.normal(0.0, 4.0, at_once))
            money[name] = np.where(rng.random(at_once) < 0.12, rng.choice(special, at_once), x)
        kind = rng.choice([1.0, 1.0, 2.0, 0.0, 3.0, np.nan], at_once)
        texts = {name: rng.integers(size, size=at_once).astype(str).tolist() for name, size in sizes.items()}
        out = {name: array("d", bytes(8 * at_once)) for name in ("bid_cpm", "win_rate", "pctr", "pcvr")}
        scorer.score_many({**texts, **money, "auction_type": kind}, out)
        rows = zip(kind.tolist(), *(x.tolist() for x in money.values()), *out.values(), strict=True)
        for row in rows:
            outcome.trials += 1
            broken = _broken(*row)
            if broken:
                outcome.broke(f"{broken}: {row!r}")


def _broken(
    kind: float,
    click: float,
    floor: float,
    cap: float,
    pacing: float,
    conversion: float,
    impression: float,
    bid: float,
    rate: float,
    pctr: float,
    pcvr: float,
) -> str | None:
    """How (bid, rate) breaks the contract for these exact inputs."""
    if not (0.0 <= pctr <= 1.0 and 0.0 <= pcvr <= 1.0):
        return "pctr or pcvr is no probability"
    if not (0.0 <= rate <= 1.0 and 0.0 <= bid < math.inf):
        return "a bid or a win rate out of range"
    amounts = (click, conversion, impression, pacing, floor)
    valid = kind in (1.0, 2.0) and all(x >= 0.0 for x in amounts) and cap > 0.0 and cap >= floor
    if not valid or math.inf in amounts:
        return "a bid on invalid terms" if bid else None
    of_click = Fraction(click) + Fraction(pcvr) * Fraction(conversion)
    value = Fraction(impression) + Fraction(1000) * Fraction(pctr) * of_click
    v = value * Fraction(pacing)
    slack = v * Fraction(7, 2**53)  # of six roundings; then of subnormal ones, which pacing enlarges
    slack += Fraction(5e-324) * 4_000 * (1 + Fraction(pacing))
    if max(v, value, of_click) > Fraction(1.7e308):
        return None  # beyond doubles, where no bid is right and so is a bid within cap, checked below
    if bid == 0.0:
        must = v > Fraction(floor) + slack and v > Fraction(1e-250)
        return "no bid where value is above floor" if must and kind == 2.0 else None
    if not Fraction(floor) <= Fraction(bid) <= v + slack or bid > cap:
        return "a bid outside floor, cap and value"
    if kind == 2.0 and abs(Fraction(bid) - min(v, Fraction(cap) if cap < math.inf else v)) > slack:
        return "a second-price bid that is not the value"
    return None
