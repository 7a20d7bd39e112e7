"""What bids cost: units by hand, thresholds that keep their promise, bounds that hold the truth."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.cli import main
from bidml.cost import ComputeCost, Prices, costs_by_exchange, measure_compute
from bidml.errors import ConfigError, DataError
from bidml.pricing import WinCurve, optimal_bid_cpm
from bidml.replay import ReplayAuctions
from bidml.score import Scorer
from bidml.simulate import Simulation, simulate

FREE = Prices(per_hour=0.0)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(8_000, rng=np.random.default_rng(11))


def curve_of(simulation: Simulation) -> WinCurve:
    return WinCurve(simulation.truth.location, 1.0 / simulation.truth.scale)


def told(simulation: Simulation) -> ReplayAuctions:
    return ReplayAuctions.from_log(simulation.log.drop(columns="true_market_price_cpm"))


def bids_of(auctions: ReplayAuctions, curve: WinCurve) -> np.ndarray:
    return optimal_bid_cpm(
        auctions.value_cpm, curve, floor_cpm=auctions.floor_cpm, auction_type=auctions.auction_type
    )


def test_prices_by_hand():
    """36 per hour for 10 cores, half used, is 0.002 a core-second; 1 KB at 2 per GB is 2e-6."""
    prices = Prices(
        per_hour=36.0,
        n_cores=10,
        utilisation=0.5,
        overhead_us=90.0,
        per_gb=2.0,
        response_bytes=1000.0,
        per_answer=1e-6,
    )
    assert prices.per_core_second == pytest.approx(0.002)
    assert prices.per_response == pytest.approx(3e-6)
    cost = ComputeCost("bid", 10.0, 9.0, 12.0, 1000, "here")
    assert cost.bids_per_core_second == pytest.approx(100_000.0)
    assert cost.per_million(prices) == pytest.approx(1e6 * 100e-6 * 0.002)


@settings(max_examples=20)
@given(st.floats(0.0, 1e-3), st.booleans())
def test_skipping_costs_the_model_at_most_what_it_saves(simulation, per_answer, known):
    """By the curve and the values that decide; each threshold is the cost of an answer in CPM."""
    simulation = simulation[:1_500]
    auctions = ReplayAuctions.from_log(simulation.log) if known else told(simulation)
    curve, exchange = curve_of(simulation), simulation.log["exchange"].to_numpy()
    found = costs_by_exchange(
        auctions,
        bids_of(auctions, curve),
        curve,
        exchange,
        Prices(per_hour=1.0, per_answer=per_answer),
        cpu_us=2.0,
    )
    assert sum(cost.n_requests for cost in found) == len(auctions)
    for cost in found:
        assert cost.skip_below_cpm == pytest.approx(1000.0 * per_answer)
        assert cost.surplus_lost_expected <= cost.saved + 1e-12
        assert cost.n_skipped <= cost.n_bids
        assert cost.surplus_lost.lower <= cost.surplus_lost.estimate <= cost.surplus_lost.upper
        if known:
            assert cost.surplus_lost.is_known
        if per_answer == 0.0:
            assert cost.n_skipped == 0


def test_bounds_hold_what_skipping_loses(simulation):
    """The truth, replayed with the true prices, lies between; and more is skipped where answers are dearer."""
    curve, exchange = curve_of(simulation), simulation.log["exchange"].to_numpy()
    known, logged = ReplayAuctions.from_log(simulation.log), told(simulation)
    bids, prices = bids_of(known, curve), Prices(per_hour=1.0, per_answer=2e-4)
    truth = costs_by_exchange(known, bids, curve, exchange, prices, cpu_us=2.0)
    found = costs_by_exchange(logged, bids, curve, exchange, prices, cpu_us=2.0)
    assert [cost.exchange for cost in found] == [cost.exchange for cost in truth]
    for have, true in zip(found, truth, strict=True):
        assert have.n_skipped == true.n_skipped > 50
        assert have.surplus_lost.lower - 1e-12 <= true.surplus_lost.lower <= have.surplus_lost.upper + 1e-12
        assert have.gain.lower - 1e-12 <= true.gain.lower <= have.gain.upper + 1e-12
    silent = [cost for cost in found if cost.exchange == "playfront"]  # a closed exchange
    assert all(cost.surplus_lost.lower < cost.surplus_lost.upper for cost in silent)
    assert len(silent) == 1
    by_exchange = dict.fromkeys(sorted(set(exchange)), FREE) | {"oldgate": prices}
    some = costs_by_exchange(logged, bids, curve, exchange, by_exchange, cpu_us=2.0)
    assert {cost.exchange for cost in some if cost.n_skipped} == {"oldgate"}


def test_a_judge_that_knows_better_finds_skipping_at_a_loss(simulation):
    """The broken twin: a bidder that believes a hundredth of the value skips bids that earn more than they cost."""
    auctions, curve = ReplayAuctions.from_log(simulation.log), curve_of(simulation)
    bids, exchange = bids_of(auctions, curve), np.full(len(auctions), "all")
    prices = Prices(per_hour=1.0, per_answer=1e-4)
    (right,) = costs_by_exchange(auctions, bids, curve, exchange, prices, cpu_us=2.0)
    (wrong,) = costs_by_exchange(
        auctions, bids, curve, exchange, prices, cpu_us=2.0, believed_cpm=0.01 * auctions.value_cpm
    )
    assert right.gain.lower > 0.0
    assert wrong.gain.upper < 0.0


def test_compute_is_measured_in_processor_time(simulated_run: Any):
    """Both calls, in turns; what sleeps costs nothing; the interval holds the median."""
    scorer = Scorer.load(simulated_run.artifact)
    with gzip.open(simulated_run.folder / "requests.jsonl.gz", "rt") as lines:
        auctions = [json.loads(next(lines)) for _ in range(50)]
    line = scorer.line_item(cap_cpm=9.0, **auctions[0]["line_item"])
    found = measure_compute(scorer, [auction["request"] for auction in auctions], line, seconds=0.05)
    assert [cost.call for cost in found] == ["bid(request, line)", "bid_json(bytes, line)"]
    for cost in found:
        assert 0.0 < cost.low_us <= cost.cpu_us <= cost.high_us
        assert cost.n_calls >= 8 * 256
        assert cost.bids_per_core_second == pytest.approx(1e6 / cost.cpu_us)
    with pytest.raises(DataError, match="has requests"):
        measure_compute(scorer, [], line)


def test_the_command_line(simulated_run: Any, tmp_path: Path, monkeypatch: Any, capsys: Any):
    with gzip.open(simulated_run.folder / "requests.jsonl.gz", "rt") as lines:
        auctions = [json.loads(next(lines)) for _ in range(20)]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(json.dumps(auction["request"]) for auction in auctions))
    terms = dict(auctions[0]["line_item"])
    command = [
        "bidml",
        "cost",
        str(simulated_run.artifact),
        str(requests),
        "--cap-cpm",
        "40",
        "--seconds",
        "0",
    ]
    command += [
        "--value-per-click",
        str(terms.pop("value_per_click")),
        "--instance-price",
        "1.5",
        "--cores",
        "32",
    ]
    command += ["--egress-per-gb", "0.08", "--response-bytes", "1200"]
    command += [option for name, value in terms.items() for option in ("--field", f"{name}={value}")]
    for extra in ([], ["--json", "--log", str(simulated_run.log)]):
        monkeypatch.setattr(sys, "argv", [*command, *extra])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    text, _, document = capsys.readouterr().out.partition("\n{")
    assert "bids per core-second" in text
    found = json.loads("{" + document)
    assert found["prices"]["per_response"] == pytest.approx(1200 * 0.08 / 1e9)
    assert {x["exchange"] for x in found["exchanges"]} == {"adx-open", "nimbus", "playfront", "oldgate"}
    assert all(x["surplus_lost_expected"] <= x["saved"] for x in found["exchanges"])


def test_errors_say_what_to_do(simulation):
    auctions, curve = told(simulation)[:3], curve_of(simulation)[:3]
    for wrong in ({"per_hour": -1.0}, {"per_hour": 1.0, "utilisation": 0.0}, {"per_hour": 1.0, "n_cores": 0}):
        with pytest.raises(ConfigError):
            Prices(**wrong)
    with pytest.raises(DataError, match="every exchange has prices"):
        costs_by_exchange(auctions, np.ones(3), curve, ["a", "a", "b"], {"a": FREE}, cpu_us=1.0)
    with pytest.raises(DataError, match="one exchange, bid and belief"):
        costs_by_exchange(auctions, np.ones(3), curve, ["a"], FREE, cpu_us=1.0)
