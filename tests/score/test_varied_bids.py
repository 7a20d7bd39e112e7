"""Exploration in the scorer: NumPy's rule to the last digits, random by statistics, the same when asked again."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint
from decisions import RATES, artifact_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf, ndtr, ndtri
from scipy.stats import chisquare, kstest

from bidml.contract import NoBidReason
from bidml.errors import ConfigError
from bidml.export import model_bytes
from bidml.pricing import WinCurve, density_around, explore_by_id
from bidml.pricing.exploration import _siphash_2_4, _uniform
from bidml.replay import OverlapWarning, ReplayAuctions, off_policy_value
from bidml.score import Canary, DecisionLog, Scorer, _native, follow
from bidml.score.decision_log import read_decisions
from bidml.score.exploration import Exploration
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.self_check import self_check_of
from training.publication import publish_bytes

TERMS: dict[str, Any] = {"creative": "320x50", "value_per_click": 20.0, "cap_cpm": 80.0}
LEAST_P = 1e-4


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()), rates=RATES)


def request_of(auction_id: Any, *, at: Any = 1, floor: float = 0.5, **imp: Any) -> dict[str, Any]:
    imps = [{"bidfloor": floor, "bidfloorcur": "EUR", **imp}] * 3
    return {"id": auction_id, "at": at, "imp": imps, "device": {"geo": {"country": "DEU", "lat": 52.5}}}


texts = st.text(max_size=40)
salts = st.sampled_from(["", "2026-11", "ß"])
shares = st.sampled_from([1.0, 0.5, 1e-3])
sigmas = st.floats(0.01, 2.0)


# ---- what it is made of ----


def test_siphash_is_the_paper_s() -> None:
    """The test vector of appendix A, in both twins."""
    key = bytes(range(16))
    words = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    for hashed in (_siphash_2_4(words, bytes(range(15))), _native.siphash_2_4(*words, bytes(range(15)))):
        assert hashed == 0xA129CA6149BE45E5


@given(low=st.integers(0, 2**64 - 1), high=st.integers(0, 2**64 - 1), text=st.binary(max_size=70))
def test_native_siphash_is_the_twin_s(low, high, text):
    assert _native.siphash_2_4(low, high, text) == _siphash_2_4((low, high), text)


def test_the_normal_distribution_is_scipy_s() -> None:
    """Tail, mass and quantile, deep into the tail, where the rounding of the exponent shows."""
    x = np.concatenate([np.linspace(0.0, 8.0, 4_001), np.linspace(8.0, 37.0, 500), [1e-9, 1e-300]])
    tail = np.array([_native.normal_tail(v) for v in x.tolist()])
    np.testing.assert_allclose(tail, ndtr(-x), rtol=3e-13)
    np.testing.assert_allclose(tail[x < 8.0], ndtr(-x[x < 8.0]), rtol=2e-14)
    mass = [_native.normal_mass_up_to(v) for v in x.tolist()]
    np.testing.assert_allclose(mass, 0.5 * erf(x / math.sqrt(2.0)), rtol=1e-14)
    q = np.concatenate([np.geomspace(1e-290, 0.5, 4_001), np.linspace(1e-3, 0.5, 4_001)])
    found = [_native.normal_upper_quantile(v) for v in q.tolist()]
    np.testing.assert_allclose(found, -ndtri(q), rtol=1e-13, atol=1e-15)
    assert (_native.normal_tail(math.inf), _native.normal_tail(40.0)) == (0.0, 0.0)


# ---- the rule ----


def differential(n: int, seed: int) -> dict[str, np.ndarray]:
    """Random bids, bounds and spreads: what the native rule and NumPy's make of them."""
    rng = np.random.default_rng(seed)
    bid, sigma = np.exp(rng.normal(0.0, 2.0, n)), np.exp(rng.uniform(-3.0, 1.0, n))
    lowest = np.where(rng.random(n) < 0.3, 0.0, bid * np.exp(-rng.exponential(2.0, n) * sigma))
    highest = bid * np.exp(rng.exponential(2.0, n) * sigma)
    lowest, highest = np.where(rng.random(n) < 0.1, bid, lowest), np.where(rng.random(n) < 0.1, bid, highest)
    ids = [f"auction {i}" for i in range(n)]
    rows = {"bid": bid, "sigma": sigma, "lowest": lowest, "highest": highest}
    native, twin = [], []
    for i in range(n):
        how = Exploration(0.7, float(sigma[i]), "salt")
        key, bounds = how.key({}), (float(lowest[i]), float(highest[i]))
        native.append(_native.explored(0.7, how.sigma, *key, ids[i].encode(), 2, float(bid[i]), *bounds))
        b, d = explore_by_id(
            [bid[i]], [ids[i]], how, {}, imp=2, lowest_cpm=[lowest[i]], highest_cpm=[highest[i]]
        )
        twin.append((b.item(), d.item()))
    rows["native"], rows["density"] = np.array(native).T
    rows["twin"], rows["twin_density"] = np.array(twin).T
    rows["u"] = np.array([_uniform(_siphash_2_4(how.key({}), i.encode()), 5) for i in ids])
    return rows


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return differential(4_000, 3)


def test_explored_bids_and_densities_are_numpy_s(rows: dict[str, np.ndarray]) -> None:
    """The same auctions; bids to 1e-12 where NumPy's own quantile is, densities of the same bid to 1e-12."""
    explored = ~np.isnan(rows["density"])
    np.testing.assert_array_equal(explored, ~np.isnan(rows["twin_density"]))
    np.testing.assert_array_equal(rows["native"][~explored], rows["bid"][~explored])
    assert 0.6 < explored.mean() < 0.75
    z = np.log(rows["native"] / rows["bid"]) / rows["sigma"]
    # near 1 a double has no more of a probability than 1e-16, which is that much times 1/φ(z) of z
    slack = 1e-12 + rows["sigma"] * np.where(z > 1.0, 4e-16 * np.exp(0.5 * z * z), 0.0)
    assert np.all(np.abs(np.log(rows["native"] / rows["twin"]))[explored] <= slack[explored])
    b, bid, sigma, low, high = (rows[x][explored] for x in ("native", "bid", "sigma", "lowest", "highest"))
    again = 0.7 * density_around(b, bid, sigma, lowest_cpm=low, highest_cpm=high)
    np.testing.assert_allclose(rows["density"][explored], again, rtol=1e-12)


def test_an_explored_bid_is_the_quantile_that_the_hash_says(rows: dict[str, np.ndarray]) -> None:
    """Backwards, by SciPy: the mass below the bid is u, to the rounding of the bid itself."""
    explored = ~np.isnan(rows["density"])
    bid, sigma, b = (rows[name][explored] for name in ("bid", "sigma", "native"))
    with np.errstate(divide="ignore"):
        low, at, high = (
            np.log(x / bid) / sigma for x in (rows["lowest"][explored], b, rows["highest"][explored])
        )
    half = [0.5 * erf(x / math.sqrt(2.0)) for x in (low, at, high)]
    u = (half[1] - half[0]) / (half[2] - half[0])
    rounding = 4e-16 / sigma * np.exp(-0.5 * at * at) / (half[2] - half[0])
    assert np.all(np.abs(u - rows["u"][explored]) <= 1e-13 + rounding)


def test_a_narrow_space_is_explored_within_its_bounds() -> None:
    """Down to one ulp: never a bid outside, a density that is none or the uniform one; no bound, no bid, no space."""
    for width in (1e-3, 1e-9, 1e-14, 2e-16):
        low, high = 1.0 - width, 1.0 + width
        for i in range(200):
            b, density = _native.explored(1.0, 0.4, 1, 2, b"%d" % i, 0, 1.0, low, high)
            assert low <= b <= high
            assert math.isnan(density) or density == pytest.approx(1.0 / math.log(high / low), rel=0.2)
    b, density = _native.explored(1.0, 0.4, 1, 2, b"a", 0, 1.0, 1.0, 1.0)
    assert (b, math.isnan(density)) == (1.0, True)


# ---- the scorer ----


@given(
    auction_id=texts | st.integers(-(2**62), 2**62),
    at=st.sampled_from([1, 2, None]),
    floor=st.sampled_from([0.0, 0.5, 6.0, 6.4829, 30.0]),
    imp=st.integers(0, 2),
    cap=st.sampled_from([0.6, 5.0, 6.6, 1e6]),
    share=shares, sigma=sigmas, salt=salts,
)  # fmt: skip
def test_the_scorer_explores_as_numpy_says(scorer, auction_id, at, floor, imp, cap, share, sigma, salt):
    """Dict, bytes, `best` and deals alike; in its bounds; else the very bid of a line item that does not explore."""
    request = request_of(auction_id, at=at, floor=floor)
    terms = {**TERMS, "cap_cpm": cap}
    plain, how = scorer.line_item(**terms), Exploration(share, sigma, salt)
    line = scorer.line_item(
        **terms, exploration_share=share, exploration_sigma=sigma, exploration_salt=salt, deals=["a"]
    )
    intended, why = scorer.decide(request, plain, imp), scorer.explain(request, line, imp)
    found = scorer.decide(request, line, imp)
    assert found.reason == intended.reason
    assert math.isnan(intended.propensity)
    others = [
        scorer.decide_json(json.dumps(request).encode(), line, imp),
        scorer.decide_deal(request, line, imp),
        scorer.decide_deal_json(json.dumps(request).encode(), line, imp),
        scorer.best(request, [line], imp),
        scorer.best_json(json.dumps(request).encode(), [line], imp),
        why,
    ]
    for other in others:
        assert (other.bid_cpm, str(other.propensity)) == (found.bid_cpm, str(found.propensity))
    assert scorer.bid(request, line, imp) == found.bid_cpm
    highest = min(cap, why.unshaded_bid_cpm)
    name = str(auction_id) if at == 1 else ""  # the default is second price
    bids, density = explore_by_id(
        [intended.bid_cpm],
        [name],
        how,
        {"creative": "320x50"},
        imp=imp,
        lowest_cpm=floor,
        highest_cpm=highest,
    )
    assert found.propensity == pytest.approx(density.item(), rel=1e-9, nan_ok=True)
    assert found.bid_cpm == pytest.approx(bids.item(), rel=1e-9)
    if math.isnan(found.propensity):
        assert found == intended
    else:
        assert floor <= found.bid_cpm <= highest
        curve = WinCurve(why.win_location, why.win_shape, 1.5)
        assert why.win_rate == pytest.approx(curve.win_rate(found.bid_cpm).item(), rel=1e-12)
        assert why.waterfall[-1].after_cpm == found.bid_cpm
        assert why.waterfall[-2].after_cpm == intended.bid_cpm


@pytest.mark.parametrize(
    "nothing",
    [None, "", True, 1.5, [], {}, "x" * 3000, "\ud800", 2**70, math.nan],
    ids=lambda x: repr(x)[:12],
)
def test_an_auction_without_a_name_is_not_explored(scorer: Scorer, nothing: Any) -> None:
    """Nothing to be random by: the intended bid, whatever stands there for an id, or nothing at all."""
    line = scorer.line_item(**TERMS, exploration_share=1.0)
    intended = scorer.bid(request_of("x"), scorer.line_item(**TERMS))
    unnamed = request_of(nothing)
    without = {key: value for key, value in unnamed.items() if key != "id"}
    for request in (unnamed, without):
        found = scorer.decide(request, line)
        assert (found.bid_cpm, math.isnan(found.propensity)) == (intended, True)
        assert scorer.decide_json(json.dumps(request).encode(), line) == found
    assert scorer.decide(request_of("x"), line).bid_cpm != intended


def test_a_number_as_an_id_is_its_text(scorer: Scorer) -> None:
    """In a dict and in bytes; escapes are what they mean."""
    line = scorer.line_item(**TERMS, exploration_share=1.0)
    assert scorer.decide(request_of(42), line) == scorer.decide(request_of("42"), line)
    data = json.dumps(request_of("Ελλάδα")).encode()
    assert b"\\u0395" in data
    assert scorer.decide_json(data, line) == scorer.decide(request_of("Ελλάδα"), line)
    assert scorer.bid(request_of("43"), line) != scorer.bid(request_of("42"), line)
    long = "x" * 1_000
    assert scorer.bid(request_of(long + "1"), line) != scorer.bid(request_of(long + "2"), line)


def test_what_is_not_paid_is_not_explored(scorer: Scorer) -> None:
    """Second price, a fixed price; a private auction of first price is, within its own floor."""
    line = scorer.line_item(**TERMS, deals=["a"], exploration_share=1.0)
    plain = scorer.line_item(**TERMS, deals=["a"])

    def both(i: int, **deal: Any) -> tuple[Any, Any]:
        pmp = {"private_auction": 1, "deals": [{"id": "a", "bidfloorcur": "EUR", **deal}]}
        request = request_of(f"auction {i}", pmp=pmp)
        return scorer.decide_deal(request, line), scorer.decide_deal(request, plain)

    for i in range(50):
        for kind in ({"at": 3, "bidfloor": 5.0}, {"at": 2, "bidfloor": 5.0}):
            found, intended = both(i, **kind)
            assert found == intended
            assert math.isnan(found.propensity)
        found, intended = both(i, at=1, bidfloor=6.3)
        assert found.deal == "a"
        assert found.bid_cpm >= 6.3
        assert found.bid_cpm != intended.bid_cpm
        assert found.propensity > 0.0
        second = request_of(f"auction {i}", at=2)
        assert scorer.decide(second, line) == scorer.decide(second, plain)


def test_line_items_compete_with_the_bids_they_intend(scorer: Scorer) -> None:
    """`best` takes whom it took, and varies that bid."""
    lines = [
        scorer.line_item(**{**TERMS, "value_per_click": v}, exploration_share=s)
        for v, s in ((20, 1), (19, 0))
    ]
    plain = [scorer.line_item(**{**TERMS, "value_per_click": v}) for v in (20, 19)]
    for i in range(50):
        request = request_of(f"auction {i}")
        index, bid_cpm = found = scorer.best(request, lines)
        assert index == scorer.best(request, plain)[0] == 0
        assert bid_cpm == scorer.bid(request, lines[0])
        assert found.propensity > 0.0
    assert (scorer.best({}, lines), str(scorer.best({}, lines).propensity)) == ((-1, 0.0), "nan")


def test_explored_bids_are_counted_apart(scorer: Scorer) -> None:
    """Not as moved by cap or floor."""
    before = scorer.telemetry()
    line = scorer.line_item(**TERMS, exploration_share=1.0)
    for i in range(20):
        scorer.bid(request_of(f"auction {i}"), line)
    after = scorer.telemetry()
    assert (after.explored - before.explored, after.lowered, after.raised) == (
        20,
        before.lowered,
        before.raised,
    )
    assert (after + after).explored == 2 * after.explored


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"exploration_share": -0.1}, "exploration_share"),
        ({"exploration_share": math.nan}, "exploration_share"),
        ({"exploration_share": True}, "exploration_share"),
        ({"exploration_share": "0.1"}, "exploration_share"),
        ({"exploration_share": 0.1, "exploration_sigma": 0.0}, "exploration_sigma"),
        ({"exploration_share": 0.1, "exploration_sigma": 11.0}, "exploration_sigma"),
        ({"exploration_share": 0.1, "exploration_salt": 7}, "exploration_salt"),
        ({"exploration_share": 0.1, "odd": {1, 2}}, "text and numbers"),
    ],
)
def test_impossible_exploration_is_refused(scorer: Scorer, terms: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        scorer.line_item(**TERMS, **terms)


# ---- randomness ----


def looks_random(chosen: np.ndarray, at: np.ndarray) -> bool:
    """Uniform numbers, each and together, and each with the one before: what an auction's two numbers must be."""
    ps = [kstest(chosen, "uniform").pvalue, kstest(at, "uniform").pvalue]
    for x, y in ((chosen, at), (chosen[:-1], chosen[1:]), (at[:-1], at[1:])):
        cells, _, _ = np.histogram2d(x, y, bins=12, range=[[0, 1], [0, 1]])
        ps.append(chisquare(cells.ravel()).pvalue)
    return min(ps) > LEAST_P


def numbers_of(scorer: Scorer, names: list[str], imp: int = 0, **terms: Any) -> tuple[np.ndarray, np.ndarray]:
    """Seen from outside: the quantile each bid took (share 1), and by bisection over shares whether it was chosen."""
    request = request_of("")
    why = scorer.explain(request, scorer.line_item(**TERMS))
    line = scorer.line_item(**TERMS, exploration_share=1.0, exploration_sigma=0.3, **terms)
    bids = np.array([scorer.bid({**request, "id": name}, line, imp) for name in names])
    low, at, high = (ndtr(np.log(x / why.bid_cpm) / 0.3) for x in (why.floor_cpm, bids, why.cap_cpm))
    chosen = np.zeros(len(names))
    for share in (np.arange(16) + 1.0) / 16.0:
        line = scorer.line_item(**TERMS, exploration_share=float(share), exploration_sigma=0.3, **terms)
        plain = np.array(
            [math.isnan(scorer.decide({**request, "id": n}, line, imp).propensity) for n in names]
        )
        chosen += plain / 16.0
    jitter = np.random.default_rng(1).random(len(names)) / 16.0
    return chosen + jitter, (at - low) / (high - low)


def test_the_choice_and_the_jitter_are_random(scorer: Scorer) -> None:
    """For ids in a row; each breakage that a hash could have is seen."""
    names = [f"{i:08x}" for i in range(6_000)]
    chosen, at = numbers_of(scorer, names)
    assert looks_random(chosen, at)
    assert not looks_random(chosen, chosen)  # one number for both
    assert not looks_random(chosen, at**1.2)  # not uniform
    assert not looks_random(np.arange(6_000) % 997 / 997, at)  # follows the ids
    byte_sums = np.array([sum(name.encode()) % 256 / 256 for name in names])
    assert not looks_random(byte_sums, at)
    for other in (
        numbers_of(scorer, names, exploration_salt="another")[1],
        numbers_of(scorer, names, 1)[1],
        numbers_of(scorer, names, campaign="another")[1],
    ):
        assert looks_random(other, at)  # line items, salts and impressions are independent


def test_the_share_is_explored_whatever_the_canary_and_the_log_take(scorer: Scorer, tmp_path: Any) -> None:
    """Independent of the arms and of the sample of decisions, which are hashes of the same id."""
    n, share = 20_000, 0.1
    line = scorer.line_item(**TERMS, exploration_share=share)
    names = [f"auction {i}" for i in range(n)]
    explored = np.array([scorer.decide(request_of(name), line).propensity > 0.0 for name in names])
    arms = Canary.__new__(Canary)
    arms._threshold, arms._salt = 2**31, 12345
    with DecisionLog(tmp_path / "log", share=0.5) as log:
        sampled = np.array([log._is_sampled({"id": name}) for name in names])
    challenger = np.array([arms.arm_of(name) == "challenger" for name in names])
    for rows in (np.ones(n, bool), challenger, ~challenger, sampled, ~sampled):
        spread = math.sqrt(share * (1.0 - share) / rows.sum())
        assert explored[rows].mean() == pytest.approx(share, abs=4.5 * spread)


# ---- what is logged ----


def test_logged_exploration_is_priced_again_to_the_bit(tmp_path: Any) -> None:
    """Bid and propensity, of dicts, bytes and deals; another spread, salt, id or density is another decision."""
    blueprint = complete_blueprint()
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    scorer = Scorer(parse_artifact(data), rates=RATES)
    (tmp_path / f"{scorer.sha256}.onnx").write_bytes(data)
    line = scorer.line_item(
        **TERMS, exploration_share=0.5, exploration_sigma=0.3, exploration_salt="ß", age=0.1, deals=["a"]
    )
    said: list[Any] = []
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for i in range(30):
            request = request_of(f"auction {i}") | {"ext": {"timestamp": 1_772_366_400_000}}
            said.append(log.decide(scorer, request, line, 1))
            said.append(log.decide(scorer, json.dumps(request).encode(), line, 1))
            said.append(log.decide_deal(scorer, request, line, 1))
        log.decide(scorer, request, scorer.line_item(**TERMS))
    *records, plain = read_decisions([tmp_path / "log"])
    assert not {"exploration", "propensity"} & set(plain)
    repricer = Repricer(tmp_path)
    repriced = [repricer(record) for record in records]
    assert all(r.is_equal for r in repriced)
    assert [r.logged[0] for r in repriced] == [decision.bid_cpm for decision in said]
    assert [str(r.propensities[0]) for r in repriced] == [str(decision.propensity) for decision in said]
    chosen = [record for record in records if record["propensity"] is not None]
    assert 20 < len(chosen) < 70
    for key, other in (("sigma", (0.31).hex()), ("salt", "ss"), ("share", (0.6).hex())):
        assert not repricer({**chosen[0], "exploration": {**chosen[0]["exploration"], key: other}}).is_equal
    assert not repricer({**chosen[0], "request": {**chosen[0]["request"], "id": "another"}}).is_equal
    wrong = {
        **chosen[0],
        "propensity": (math.ulp(1.0) + float.fromhex(chosen[0]["propensity"]) * 1.0001).hex(),
    }
    assert not repricer(wrong).is_equal
    assert "propensity" in str(repricer(wrong))


def test_exploration_follows_a_publication(tmp_path: Any) -> None:
    """The same auctions after a swap of the model; a stale model has no propensity."""
    blueprint = complete_blueprint()
    publish_bytes(tmp_path, model_bytes(blueprint, self_check_of(blueprint, {})), expected_generation=0)
    following = follow(tmp_path, interval_seconds=None, rates=RATES)
    line = following.line_item(**TERMS, exploration_share=0.5)

    def explored() -> list[bool]:
        return [following.decide(request_of(f"auction {i}"), line).propensity > 0.0 for i in range(60)]

    before = explored()
    blueprint = replace(blueprint, win=replace(blueprint.win, gamma=1.4))
    publish_bytes(tmp_path, model_bytes(blueprint, self_check_of(blueprint, {})), expected_generation=1)
    assert following.check()
    assert explored() == before
    assert {True, False} == set(before)


def test_off_policy_evaluation_reads_the_propensity(scorer: Scorer) -> None:
    """Auctions won by the model's own curve: the density's estimate is the truth of another policy; twice it is not."""
    n, rng = 8_000, np.random.default_rng(4)
    request = request_of("", floor=2.0)
    why = scorer.explain(request, scorer.line_item(**TERMS))
    line = scorer.line_item(**TERMS, exploration_share=0.9, exploration_sigma=0.5)
    said = [scorer.decide({**request, "id": f"auction {i}"}, line) for i in range(n)]
    bids, propensity = (np.array([getattr(d, name) for d in said]) for name in ("bid_cpm", "propensity"))
    curve = WinCurve(why.win_location, why.win_shape, 1.5)
    v = why.unshaded_bid_cpm
    won = rng.random(n) < curve.win_rate(bids)
    auctions = ReplayAuctions(
        lower_cpm=np.where(won, 0.0, bids), upper_cpm=np.where(won, bids, np.inf), winnable=np.ones(n, bool),
        floor_cpm=np.full(n, 2.0), auction_type=np.ones(n), value_cpm=np.full(n, v), pctr=np.full(n, why.pctr),
        bid_cpm=bids, won=won, clicked=np.zeros(n, bool), realised_value_cpm=v * won, currency="EUR",
    )  # fmt: skip
    target = 0.5 * why.bid_cpm
    truth = ((v - target) * curve.win_rate(np.array([target]))).item()

    def estimated(density: np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OverlapWarning)
            return off_policy_value(
                auctions, np.full(n, target), curve, rng=rng, propensity="density", density=density,
                bandwidth=0.1, confidence=0.999,
            )  # fmt: skip

    found = estimated(propensity)
    assert found.ips.low < truth < found.ips.high
    assert not (lambda wrong: wrong.low < truth < wrong.high)(estimated(2.0 * propensity).ips)


def test_a_plain_decision_says_that_it_was_not_varied(scorer: Scorer) -> None:
    """A tuple of two, as ever; the propensity is an attribute beside it."""
    found = scorer.decide(request_of("x"), scorer.line_item(**TERMS))
    assert (len(found), tuple(found)) == (2, (found.bid_cpm, NoBidReason.BID))
    assert math.isnan(found.propensity)
    no_bid = scorer.decide_deal(None, scorer.line_item(**TERMS, exploration_share=1.0))
    assert tuple(no_bid) == (0.0, NoBidReason.INVALID_REQUEST, None)
    assert math.isnan(no_bid.propensity)
