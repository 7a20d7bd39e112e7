"""What a loaded scorer promises: line items, the internal auction, explanations, counters, threads."""

from __future__ import annotations

import json
import math
import random
import threading
import tracemalloc
from array import array
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint, trees_of
from decisions import RATES

import bidml.score
from bidml.blueprint import Blueprint, Column, CtrBlueprint, Head, Lookup, Trees
from bidml.contract import AuctionType, NoBidReason
from bidml.errors import ArtifactError, ConfigError
from bidml.export import write_artifact
from bidml.pricing import WinCurve
from bidml.pricing.mechanisms import second_price_surplus_cpm
from bidml.score import LineItem, RawExtractor, Scorer
from bidml.score._native import isa_available
from bidml.score.reader import read_artifact

REQUEST: dict[str, Any] = {
    "at": 1,
    "imp": [{"bidfloor": 0.02, "bidfloorcur": "EUR"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5}},
    "ext": {"timestamp": 1_750_000_000_000},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the complete blueprint."""
    found = tmp_path_factory.mktemp("scorer") / "champion.onnx"
    write_artifact(complete_blueprint(), found)
    return found


@pytest.fixture
def scorer(path: Path) -> Scorer:
    return Scorer.load(path, rates=RATES)


def line_of(scorer: Scorer, **changes: Any) -> LineItem:
    return scorer.line_item(**{"creative": "320x50", "value_per_click": 0.5, "cap_cpm": 8.0} | changes)


def test_the_public_face_is_a_short_list() -> None:
    """What a bidder imports."""
    assert bidml.score.__all__ == sorted(bidml.score.__all__)
    assert {"Explanation", "LineItem", "NoBidReason", "RawExtractor", "RequestError", "Scorer"} <= set(
        bidml.score.__all__
    )
    assert all(hasattr(bidml.score, name) for name in bidml.score.__all__)


def test_a_scorer_says_what_it_is(path: Path, scorer: Scorer) -> None:
    """Identity, contract, provenance, how each head runs; all of it JSON."""
    info = json.loads(json.dumps(scorer.info()))
    manifest = json.loads(path.with_name("champion.onnx.json").read_text())
    blueprint = complete_blueprint()
    assert info["sha256"] == manifest["sha256"]
    assert (info["currency"], info["default_auction_type"]) == ("EUR", 2)
    assert (info["provenance"], info["metrics"]) == (blueprint.provenance, blueprint.metrics)
    assert info["features"] == list(blueprint.spec.names)
    assert {name: head["n_trees"] for name, head in info["engine"]["heads"].items()} == {
        "ctr": 3, "location": 1, "log_slope": 0,
    }  # fmt: skip


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_every_instruction_set_bids_the_same(path: Path, isa: str) -> None:
    """To the last bit; one that the machine lacks is refused by name."""
    if not isa_available(isa):
        with pytest.raises(ConfigError, match="this machine has"):
            Scorer.load(path, isa=isa)
        return
    best, forced = Scorer.load(path), Scorer.load(path, isa=isa)
    assert forced.info()["engine"]["isa"] == isa
    assert forced.bid(REQUEST, line_of(forced)) == best.bid(REQUEST, line_of(best)) > 0.0


def forest(rng: random.Random, n_trees: int) -> Trees:
    def tree(depth: int) -> Any:
        return rng.random() if depth == 0 else (0, rng.random(), True, tree(depth - 1), tree(depth - 1))

    return trees_of(*(tree(5) for _ in range(n_trees)))


def test_a_loaded_scorer_keeps_the_file_and_no_blueprint(tmp_path: Path) -> None:
    """Python holds about the file's bytes, not the arrays, many times as large; they come back when asked for."""
    blueprint = complete_blueprint()
    assert blueprint.ctr is not None
    column = Column("country", Lookup("country", ("DEU",), array("d", [0.25]), 0.5))
    head = Head((column,), forest(random.Random(1), 150))
    blueprint = replace(blueprint, ctr=CtrBlueprint(head))
    path = tmp_path / "champion.onnx"
    write_artifact(blueprint, path)
    size = path.stat().st_size

    def held(load: Callable[[], object]) -> int:
        load()
        tracemalloc.start()
        kept = load()
        held_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del kept
        return held_bytes

    assert held(lambda: Scorer.load(path)) < 1.5 * size
    assert held(lambda: (Scorer.load(path), read_artifact(path))) > 3 * size, (
        "the twin that keeps the blueprint"
    )
    scorer = Scorer.load(path)
    assert scorer.blueprint == blueprint
    assert scorer.artifact.data == path.read_bytes()
    scorer.check_itself()
    assert Scorer(read_artifact(path)).blueprint == blueprint


@pytest.mark.parametrize(
    "arguments",
    [
        {"isa": "mmx"}, {"isa": None}, {"rates": {"usd": 1.0}}, {"rates": {"USD": 0.0}}, {"rates": {"USD": -1.0}},
        {"rates": {"USD": math.nan}}, {"rates": {"USD": math.inf}}, {"rates": {"USD": True}},
        {"rates": {"USD": "1.08"}}, {"rates": {"USD": 10**400}}, {"rates": {840: 1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_of_load_are_checked(path: Path, arguments: dict[str, Any]) -> None:
    """A wrong rate is wrong money: `ConfigError`."""
    with pytest.raises(ConfigError):
        Scorer.load(path, **arguments)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """Not to be confused with a file that must not be used."""
    with pytest.raises(FileNotFoundError):
        Scorer.load(tmp_path / "nobody.onnx")
    with pytest.raises(OSError, match="directory"):
        Scorer.load(tmp_path)


# ---- line items ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["value_per_click", "cap_cpm", "margin", "pacing_multiplier"])
@pytest.mark.parametrize(
    "amount", [-0.01, math.nan, math.inf, -math.inf, True, "1", None, Decimal("1"), 10**400, [1]]
)
def test_an_impossible_amount_is_refused(scorer: Scorer, name: str, amount: object) -> None:
    """At the edge, by name, quoting it."""
    with pytest.raises(ConfigError, match=name):
        line_of(scorer, **{name: amount})


@pytest.mark.parametrize(("name", "edge"), [("cap_cpm", 0.0), ("margin", 1.0)])
def test_a_cap_of_0_and_a_margin_of_1_are_refused(scorer: Scorer, name: str, edge: float) -> None:
    """Nobody means them."""
    with pytest.raises(ConfigError, match=name):
        line_of(scorer, **{name: edge})


@pytest.mark.parametrize(
    "number", [1, 1.0, np.float64(1.0), np.float32(1.0), np.int64(1)], ids=lambda x: type(x).__name__
)
def test_any_real_number_is_an_amount(scorer: Scorer, number: Any) -> None:
    """NumPy's scalars come out of tables."""
    line = line_of(
        scorer, value_per_click=number, cap_cpm=number, pacing_multiplier=number, margin=number / 2
    )
    assert (line.value_per_click, line.cap_cpm, line.pacing_multiplier) == (0.5, 1.0, 1.0)


def test_a_line_item_has_every_field_that_the_model_reads(scorer: Scorer) -> None:
    """A forgotten one would be a silent missing value."""
    with pytest.raises(ConfigError, match="creative"):
        scorer.line_item(value_per_click=1.0, cap_cpm=1.0)
    line = line_of(scorer, campaign="c42", budget=12.5)
    assert line.fields == {"creative": "320x50", "campaign": "c42", "budget": 12.5}


@pytest.mark.parametrize("text", ["\ud800", "x" * 1025, "é" * 600, "", None, 2**70])
def test_a_field_that_no_key_equals_is_the_default(scorer: Scorer, text: Any) -> None:
    """Broken, endless, missing or unknown text: the model's value for the unseen, as in a request."""
    assert scorer.bid(REQUEST, line_of(scorer, creative=text)) == scorer.bid(
        REQUEST, line_of(scorer, creative="unseen")
    )


def test_text_of_a_line_item_and_of_a_request_is_one_rule() -> None:
    """The native reading serves both sides."""
    spec = complete_blueprint().spec
    extract = RawExtractor(spec)
    for value in ("iOS", "\ud800", "x" * 1024, "x" * 1025, 7, -(2**63), 2**63, True, 1.5, None, b"a", ["a"]):
        found = extract({"imp": [{}], "device": {"os": value}}, {"creative": value})
        assert found["unused_text"] == found["creative"]


def test_pacing_may_be_set_at_any_time(scorer: Scorer) -> None:
    """The next bid is that of a line item made with it; an impossible multiplier is refused and changes nothing."""
    line = line_of(scorer)
    for pacing in (0.25, 0.9, 1.5, 1e-9):
        line.pacing_multiplier = pacing
        fresh = line_of(scorer, pacing_multiplier=pacing)
        assert scorer.decide(REQUEST, line) == scorer.decide(REQUEST, fresh)
        assert str(scorer.explain(REQUEST, line)) == str(scorer.explain(REQUEST, fresh))
    line.pacing_multiplier = 0.0
    assert scorer.decide(REQUEST, line) == (0.0, NoBidReason.NO_VALUE)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="pacing multiplier"):
            line.pacing_multiplier = wrong
    assert line.pacing_multiplier == 0.0
    with pytest.raises(AttributeError):
        line.cap_cpm = 1.0  # type: ignore[misc]


def test_a_line_item_belongs_to_its_scorer(path: Path, scorer: Scorer) -> None:
    """Its features are encoded for one model; another's would be read as garbage."""
    other = Scorer.load(path)
    line = line_of(other)
    for call in (scorer.bid, scorer.decide, scorer.explain):
        with pytest.raises(TypeError, match="belongs to the scorer"):
            call(REQUEST, line)
    with pytest.raises(TypeError, match="belongs to the scorer"):
        scorer.best(REQUEST, [line_of(scorer), line])


@pytest.mark.parametrize(
    "arguments", [(), (REQUEST,), (REQUEST, None), (REQUEST, {}), (REQUEST, 5, 0), (REQUEST, "line")]
)
def test_a_call_without_a_line_item_is_an_error_of_the_caller(scorer: Scorer, arguments: Any) -> None:
    """`TypeError`, not a no-bid: it is no content of a request."""
    for call in (scorer.bid, scorer.decide, scorer.best):
        with pytest.raises(TypeError):
            call(*arguments)


def test_an_artifact_of_one_part_has_no_line_items(tmp_path: Path) -> None:
    """It can be scored, not bid with."""
    whole = complete_blueprint()
    for part in ({"win": None}, {"ctr": None}):
        blueprint = Blueprint(
            **{"spec": whole.spec, "ctr": whole.ctr, "win": whole.win, "currency": "EUR"} | part
        )
        write_artifact(blueprint, tmp_path / "part.onnx")
        with pytest.raises(ArtifactError, match="CTR model and a win curve"):
            line_of(Scorer.load(tmp_path / "part.onnx"))


# ---- the internal auction, explanations, counters --------------------------------------------------------------


def test_best_is_the_line_item_with_the_highest_expected_surplus(scorer: Scorer) -> None:
    """Every candidate by `explain`; the first of equals; its bid is the one that `bid` gives."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        lines = [
            line_of(
                scorer,
                creative=str(rng.choice(["320x50", "other"])),
                value_per_click=float(rng.choice([0.0, 0.01, 0.3, 2.0])),
                cap_cpm=float(rng.choice([0.01, 1.0, 20.0])),
            )
            for _ in range(int(rng.integers(1, 6)))
        ]
        floor = float(rng.choice([0.0, 0.5, 3.0]))
        request = REQUEST | {"imp": [{"bidfloor": floor, "bidfloorcur": "EUR"}]}
        surplus = [scorer.explain(request, line).expected_surplus_cpm for line in lines]
        bids = [scorer.bid(request, line) for line in lines]
        index, bid_cpm = scorer.best(request, lines)
        if index < 0:
            assert (bid_cpm, set(bids)) == (0.0, {0.0})
        else:
            assert bid_cpm == bids[index] > 0.0
            assert surplus[index] == max(s for s, bid in zip(surplus, bids, strict=True) if bid > 0.0)
            assert not any(
                bid > 0.0 and s == surplus[index] for s, bid in zip(surplus[:index], bids, strict=False)
            )


def test_the_best_of_second_price_is_by_what_it_earns(scorer: Scorer) -> None:
    """E[(v − max(M, r)) 1(M ≤ b)] by NumPy, b being v or the cap; the bound that saves integrals loses no winner."""
    rng = np.random.default_rng(2)
    gamma = scorer.blueprint.win.gamma  # type: ignore[union-attr]
    not_the_first = 0
    for _ in range(100):
        lines = [
            line_of(
                scorer,
                creative=str(rng.choice(["320x50", "other"])),
                value_per_click=float(rng.lognormal(-1.0, 1.0)),
                cap_cpm=float(rng.choice([1.0, 5.0, 200.0])),
            )
            for _ in range(int(rng.integers(2, 8)))
        ]
        floor = float(rng.choice([0.0, 0.05, 0.5]))
        request = REQUEST | {"at": 2, "imp": [{"bidfloor": floor, "bidfloorcur": "EUR"}]}
        earned = []
        for line in lines:
            why = scorer.explain(request, line)
            curve = WinCurve(why.win_location, why.win_shape, gamma)
            bid = np.array([why.bid_cpm])
            found = second_price_surplus_cpm(why.unshaded_bid_cpm, bid, curve, lowest_price_cpm=floor)
            earned.append(float(found[0]) if why.bid_cpm > 0.0 else 0.0)
        index, bid_cpm = scorer.best(request, lines)
        if index < 0:
            assert not any(earned)
            continue
        assert earned[index] >= max(earned) * (1.0 - 1e-9)
        assert bid_cpm == scorer.bid(request, lines[index])
        not_the_first += index > 0
    assert not_the_first > 30


def test_best_of_none_is_none(scorer: Scorer) -> None:
    """No line items, an invalid request, an impression that is not there."""
    line = line_of(scorer)
    assert (
        scorer.best(REQUEST, []) == scorer.best({}, [line]) == scorer.best(REQUEST, (line,), 3) == (-1, 0.0)
    )
    with pytest.raises(TypeError, match="list of line items"):
        scorer.best(REQUEST, iter([line]))  # type: ignore[arg-type]


def test_an_explanation_is_the_decision_in_money(scorer: Scorer) -> None:
    """Every step, from pctr to surplus; the text says the same."""
    line = line_of(scorer, margin=0.1, pacing_multiplier=0.8, value_per_click=4.0)
    why = scorer.explain(REQUEST, line)
    assert (why.bid_cpm, why.reason) == (scorer.bid(REQUEST, line), NoBidReason.BID)
    assert why.value_cpm == pytest.approx(1000.0 * why.pctr * 4.0 * 0.9, rel=1e-15)
    assert why.unshaded_bid_cpm == pytest.approx(why.value_cpm * 0.8, rel=1e-15)
    assert why.bid_cpm == min(max(why.optimum_cpm, why.floor_cpm), why.cap_cpm, why.unshaded_bid_cpm)
    assert why.shading_factor == why.bid_cpm / why.unshaded_bid_cpm
    assert why.expected_surplus_cpm == (why.unshaded_bid_cpm - why.bid_cpm) * why.win_rate
    assert (why.floor_cpm, why.cap_cpm, why.currency, why.auction_type) == (
        0.02,
        8.0,
        "EUR",
        AuctionType.FIRST_PRICE,
    )
    assert dict(why.features) | {"unused_number": 0.0} == {
        "hour": 15.0, "country": "DEU", "lat": 52.5, "creative": "320x50", "unused_number": 0.0, "unused_text": "",
    }  # fmt: skip
    assert f"{why.bid_cpm:.4f}" in str(why)
    assert "EUR" in str(why)


def test_the_optimum_is_one(scorer: Scorer) -> None:
    """No bid beside an unconstrained one has a higher expected surplus on its own win curve."""
    why = scorer.explain(REQUEST, line_of(scorer, value_per_click=4.0, cap_cpm=1e6))
    win = complete_blueprint().win
    assert win is not None

    def surplus(bid_cpm: float) -> float:
        z = why.win_shape * (math.log(bid_cpm) - why.win_location)
        return (why.unshaded_bid_cpm - bid_cpm) / (1.0 + math.exp(-z)) ** win.gamma

    assert surplus(why.bid_cpm) == pytest.approx(why.expected_surplus_cpm, rel=1e-12)
    assert all(surplus(why.bid_cpm * factor) < surplus(why.bid_cpm) for factor in (0.5, 0.99, 1.01, 1.5))


def test_a_no_bid_is_explained_as_far_as_it_came(scorer: Scorer) -> None:
    """NaN where the decision ended before; the reason in the text."""
    line = line_of(scorer)
    early = scorer.explain(REQUEST | {"at": 9}, line)
    assert math.isnan(early.pctr)
    assert early.auction_type is None
    assert str(early) == "no bid: unsupported_auction_type"
    late = scorer.explain(REQUEST | {"imp": [{"bidfloor": 1e5, "bidfloorcur": "EUR"}]}, line)
    assert late.reason is NoBidReason.FLOOR_ABOVE_CAP
    assert late.value_cpm > 0.0
    assert math.isnan(late.shading_factor)
    assert late.expected_surplus_cpm == 0.0
    assert "floor_above_cap" in str(late)


def test_the_clock_of_the_request_is_its_own(scorer: Scorer) -> None:
    """Hours are local to the user: the request's time and its utcoffset; never the bidder's zone."""
    line = line_of(scorer)
    for offset, hour in ((None, 15.0), (0, 15.0), (-480, 7.0), (570, 0.0), (True, 15.0), (10_000, 15.0)):
        request = REQUEST | {"device": {"geo": {"utcoffset": offset}}}
        assert scorer.explain(request, line).features["hour"] == hour


def test_counters_count_each_decision_once(scorer: Scorer) -> None:
    """By reason; explain asks and does not count."""
    before = scorer.counters()
    decided_by_following = {NoBidReason.STALE_MODEL}
    assert set(before) == {reason.name.lower() for reason in set(NoBidReason) - decided_by_following}
    line = line_of(scorer)
    for _ in range(5):
        scorer.bid(REQUEST, line)
    scorer.decide({}, line)
    scorer.best(REQUEST, [line, line, line])
    scorer.explain(REQUEST, line)
    after = scorer.counters()
    changes = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changes == {"bid": 6, "invalid_request": 1}


def in_threads(n: int, work: Callable[[int], None]) -> None:
    """Runs `work(i)` in n threads; the first exception is raised here."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_share_a_scorer_and_a_line_item_while_a_pacer_turns(scorer: Scorer) -> None:
    """Each bid is that of one of the multipliers, never of a mixture; every decision is counted."""
    line = line_of(scorer)
    pacings = (0.25, 0.5, 1.0)
    allowed = {scorer.bid(REQUEST, line_of(scorer, pacing_multiplier=pacing)) for pacing in pacings}
    assert len(allowed) == len(pacings)
    before, n = sum(scorer.counters().values()), 20_000
    seen: set[float] = set()

    def work(i: int) -> None:
        if i == 0:
            for step in range(n):
                line.pacing_multiplier = pacings[step % 3]
        else:
            seen.update({scorer.bid(REQUEST, line) for _ in range(n)})

    in_threads(4, work)
    assert seen <= allowed
    assert sum(scorer.counters().values()) - before == 3 * n
