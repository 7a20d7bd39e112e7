"""Line items that are averse to the uncertainty of pctr: laws, and one bid on every path of the runtime."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint, conversions_blueprint, uncertain_blueprint
from decisions import RATES, artifact_of
from hypothesis import given
from hypothesis import strategies as st
from runtimes import run_onnxruntime

from bidml.blueprint import Blueprint, CtrBlueprint, Head, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec, NoBidReason
from bidml.errors import ArtifactError, ConfigError, DataError, ExportError
from bidml.export import model_bytes
from bidml.graph import graph_of
from bidml.metadata import TOLERANCE, difference
from bidml.oracle import evaluate
from bidml.pricing import WinCurve, cautious_pctr, optimal_bid_cpm, value_cpm
from bidml.score import DecisionLog, Scorer, follow
from bidml.score.decision_log import read_decisions
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.self_check import self_check_of
from bidml.why import why_this_price
from training.publication import publish_bytes

REQUEST: dict[str, Any] = {
    "id": "one",
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "EUR"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5}},
    "ext": {"timestamp": 1_772_366_400_000},
}
AVERSIONS = st.sampled_from([0.0, 5e-324, 1e-9, 0.25, 0.5, 1.0, 3.0, 40.0, 1e300]) | st.floats(0.0, 10.0)
LINE: dict[str, Any] = {"creative": "320x50", "cap_cpm": 1e6}


def file_of(blueprint: Blueprint) -> bytes:
    return model_bytes(blueprint, self_check_of(blueprint, {}))


@pytest.fixture(scope="module")
def model() -> bytes:
    return file_of(uncertain_blueprint())


@pytest.fixture(scope="module")
def certain() -> bytes:
    """The same but for the variance."""
    return file_of(conversions_blueprint())


@pytest.fixture(scope="module")
def scorer(model: bytes) -> Scorer:
    """Read from its file, its own rows replayed."""
    return Scorer.of_artifact(parse_artifact(model), rates=RATES)


def request_of(country: str, lat: float, at: int = 1, floor: float = 0.01) -> dict[str, Any]:
    imp = {"bidfloor": floor, "bidfloorcur": "EUR"}
    return {**REQUEST, "at": at, "imp": [imp], "device": {"geo": {"country": country, "lat": lat}}}


REQUESTS = st.builds(
    request_of,
    st.sampled_from(["", "DEU", "USA", "nowhere"]),
    st.sampled_from([52.5, -3.0, 15.0, 0.0]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 0.05, 3.0]),
)


def flat(log_odds: float, variance: float) -> Scorer:
    """The same probability and uncertainty in every auction."""
    win = WinBlueprint(Head((), None), Head((), None), 0.0)
    ctr = CtrBlueprint(Head((), None, (), log_odds), variance=Head((), None, (), variance))
    return Scorer(artifact_of(Blueprint(complete_blueprint().spec, ctr, win, "EUR")))


# ---- laws ----


@given(
    request=REQUESTS, aversions=st.tuples(AVERSIONS, AVERSIONS), of_click=st.sampled_from([1e-4, 0.3, 80.0])
)
def test_more_aversion_never_bids_more(scorer, request, aversions, of_click):
    """Monotone to the last bits, never above the value, and what is predicted stays as it was."""
    low, high = sorted(aversions)
    whys = [
        scorer.explain(request, scorer.line_item(value_per_click=of_click, risk_aversion=rho, **LINE))
        for rho in (0.0, low, high)
    ]
    for bolder, shyer in pairwise(whys):
        assert shyer.bid_cpm <= bolder.bid_cpm * (1.0 + 1e-12)
        if not math.isnan(bolder.pctr):
            assert shyer.pctr == bolder.pctr
            assert 0.0 <= shyer.priced_pctr <= bolder.priced_pctr * (1.0 + 1e-15) <= 1.0
            assert shyer.unshaded_bid_cpm <= bolder.unshaded_bid_cpm * (1.0 + 1e-15)
    for why in whys:
        assert why.bid_cpm == 0.0 or why.floor_cpm <= why.bid_cpm <= min(why.cap_cpm, why.unshaded_bid_cpm)


@given(
    request=REQUESTS, of_click=st.sampled_from([0.0, 0.3, 80.0]), of_conversion=st.sampled_from([0.0, 40.0])
)
def test_no_aversion_bids_as_the_model_without_uncertainty(scorer, certain, request, of_click, of_conversion):
    """Bit for bit: decisions, batches, and the explanation's numbers."""
    plain = Scorer(parse_artifact(certain), rates=RATES)
    terms = {**LINE, "value_per_click": of_click, "value_per_conversion": of_conversion}
    lines = (scorer.line_item(risk_aversion=0.0, **terms), plain.line_item(**terms))
    assert scorer.decide(request, lines[0]) == plain.decide(request, lines[1])
    found, wanted = scorer.explain(request, lines[0]), plain.explain(request, lines[1])
    assert str(found) == str(wanted)
    assert (found.value_cpm, found.win_rate) == pytest.approx(
        (wanted.value_cpm, wanted.win_rate), rel=0, nan_ok=True
    )


@pytest.mark.parametrize("log_odds", [math.log(1e-8), -4.0, 0.0, 3.0])
@pytest.mark.parametrize("variance", [0.01, 0.25, 4.0])
@pytest.mark.parametrize("aversion", [0.25, 1.0, 2.5])
def test_what_is_priced_is_a_lower_bound_in_log_odds(log_odds, variance, aversion):
    """σ(s − ρ √variance), at p = 1e-8 too, by NumPy's formula and the explanation."""
    scorer = flat(log_odds, variance)
    line = scorer.line_item(value_per_click=2.0, risk_aversion=aversion, **LINE)
    why = scorer.explain({"at": 1, "imp": [{}]}, line)
    assert why.pctr_log_odds_sd == math.sqrt(variance)
    assert why.priced_pctr == pytest.approx(
        cautious_pctr(log_odds, why.pctr_log_odds_sd, aversion).item(), rel=1e-14
    )
    odds = why.priced_pctr / (1.0 - why.priced_pctr)
    assert math.log(odds) == pytest.approx(log_odds - aversion * math.sqrt(variance), rel=1e-10)
    bid = optimal_bid_cpm(
        value_cpm(why.priced_pctr, 2.0), WinCurve(why.win_location, why.win_shape), cap_cpm=1e6
    )
    assert why.bid_cpm == pytest.approx(bid.item(), rel=1e-12)


def test_the_variance_is_clamped():
    """A negative sum is the least, a huge one the largest: the square root is always there."""
    for margin, sd in ((-5.0, 0.01), (0.0, 0.01), (1e5, 10.0)):
        scorer = flat(-3.0, margin)
        line = scorer.line_item(value_per_click=90.0, risk_aversion=0.5, **LINE)
        assert scorer.explain({"at": 1, "imp": [{}]}, line).pctr_log_odds_sd == sd


# ---- one bid on every path ----


@given(request=REQUESTS, aversion=AVERSIONS, of_click=st.sampled_from([0.0, 0.3, 80.0]))
def test_every_path_gives_the_same_bid(scorer, request, aversion, of_click):
    """Dict, JSON, deals, best among others, batch, and the oracle in plain Python."""
    money = {"value_per_click": of_click, "value_per_conversion": 40.0, "value_per_impression_cpm": 0.01}
    line = scorer.line_item(risk_aversion=aversion, **LINE, **money)
    bid_cpm, reason = scorer.decide(request, line)
    data = json.dumps(request).encode()
    assert scorer.bid(request, line) == scorer.bid_json(data, line) == bid_cpm
    assert scorer.decide_deal(request, line)[:2] == (bid_cpm, reason) == scorer.decide_json(data, line)
    nothing = scorer.line_item(value_per_click=0.0, **LINE)
    assert scorer.best(request, [nothing, line]) == ((1, bid_cpm) if bid_cpm > 0.0 else (-1, 0.0))
    assert scorer.best_deal(request, [nothing, line])[:2] == scorer.best(request, [nothing, line])
    geo, imp = request["device"]["geo"], request["imp"][0]
    row = {
        "hour": 12.0,
        "country": geo["country"],
        "lat": geo["lat"],
        "creative": "320x50",
        "unused_text": "",
    }
    row |= {
        "unused_number": math.nan,
        "risk_aversion": aversion,
        "floor_cpm": imp["bidfloor"],
        "cap_cpm": 1e6,
    }
    row |= {"pacing_multiplier": 1.0, "auction_type": float(request["at"]), **money}
    columns = {name: [cell] for name, cell in row.items()}
    found = array("d", [-7.0])
    scorer.bid_many(columns, out=found)
    assert found[0] == bid_cpm
    wanted = evaluate(scorer.blueprint, columns)["bid_cpm"][0]
    assert bid_cpm == pytest.approx(wanted, rel=1e-12, abs=0.0)


def test_onnxruntime_prices_the_same_aversions(model, scorer):
    """All outputs of the file as it is, on a grid that crosses countries, aversions, mechanisms and garbage."""
    aversions = [0.0, 0.25, 1.0, 2.0, math.nan, -0.5]
    cells = [
        (c, h, r, a)
        for c in ("", "DEU", "USA", "x")
        for h in (3.0, 15.0, math.nan)
        for r in aversions
        for a in (1, 2)
    ]
    n = len(cells)
    columns: dict[str, Any] = {
        "country": tuple(cell[0] for cell in cells),
        "creative": ("320x50", "other") * (n // 2),
        "unused_text": ("",) * n,
        "hour": array("d", [cell[1] for cell in cells]),
        "lat": array("d", [52.5, -40.0, 0.0] * (n // 3)),
        "unused_number": array("d", [0.0]) * n,
        "risk_aversion": array("d", [cell[2] for cell in cells]),
        "auction_type": array("d", [float(cell[3]) for cell in cells]),
    }
    money = {"value_per_click": 7.0, "value_per_conversion": 40.0, "value_per_impression_cpm": 0.02}
    money |= {"floor_cpm": 0.05, "cap_cpm": 1e6, "pacing_multiplier": 0.9}
    columns |= {name: array("d", [x]) * n for name, x in money.items()}
    order = list(parse_artifact(model).self_check.columns)
    oracle = evaluate(scorer.blueprint, {name: columns[name] for name in order})
    native = {name: array("d", bytes(8 * n)) for name in oracle}
    scorer.score_many(columns, native)
    portable = run_onnxruntime(model, columns, list(oracle))
    for name, wanted in oracle.items():
        for i, want in enumerate(wanted):
            assert difference(name, want, native[name][i]) <= TOLERANCE
            assert difference(name, want, portable[name][i]) <= TOLERANCE
    sd = np.array(oracle["pctr_log_odds_sd"])
    assert len(np.unique(sd)) > 6
    bids = np.array(native["bid_cpm"])
    rho = np.array(columns["risk_aversion"])
    assert (bids[~(rho >= 0.0)] == 0.0).all()
    assert (bids[rho == 1.0] < bids[rho == 0.0]).all()


def test_best_prefers_by_the_surplus_of_what_is_priced(scorer):
    """Aversions mixed over more than one block of line items: each alone bids as in the internal auction."""
    lines = [
        scorer.line_item(value_per_click=2.0 + 0.1 * (i % 7), risk_aversion=(0.0, 0.5, 2.0)[i % 3], **LINE)
        for i in range(40)
    ]
    whys = [scorer.explain(REQUEST, line) for line in lines]
    index, bid_cpm = scorer.best(REQUEST, lines)
    assert bid_cpm == scorer.bid(REQUEST, lines[index]) == whys[index].bid_cpm > 0.0
    assert whys[index].expected_surplus_cpm == pytest.approx(max(why.expected_surplus_cpm for why in whys))
    assert lines[index].risk_aversion == 0.0
    averse = [line for line in lines if line.risk_aversion > 0.0]
    alone = max(averse, key=lambda line: scorer.explain(REQUEST, line).expected_surplus_cpm)
    assert scorer.best(REQUEST, averse)[1] == scorer.bid(REQUEST, alone)


def test_varied_bids_and_soft_floors_know_the_aversion(scorer):
    """Never above the lower value; the soft floor's bid is that of a line item worth as little."""
    averse = scorer.line_item(
        value_per_click=3.0, risk_aversion=1.0, exploration_share=1.0, exploration_sigma=2.0, **LINE
    )
    ceiling = scorer.explain(REQUEST, averse).unshaded_bid_cpm
    bids = [scorer.bid({**REQUEST, "id": str(i)}, averse) for i in range(300)]
    assert 0.9 * ceiling < max(bids) <= ceiling
    second = {**REQUEST, "at": 2}
    shy = scorer.line_item(value_per_click=3.0, risk_aversion=1.0, **LINE)
    why = scorer.explain(second, shy)
    same = scorer.line_item(value_per_click=3.0 * why.priced_pctr / why.pctr, **LINE)
    for soft in (0.02, 0.5 * why.bid_cpm, 2.0 * why.bid_cpm):
        assert scorer.bid(second, shy, 0, soft) == pytest.approx(scorer.bid(second, same, 0, soft), rel=1e-12)


# ---- the slow side ----


def test_the_waterfall_names_the_risk(scorer):
    line = scorer.line_item(value_per_click=3.0, risk_aversion=0.5, margin=0.2, **LINE)
    why = scorer.explain(REQUEST, line)
    names = [step.name for step in why.waterfall]
    assert names[:4] == ["prediction", "calibration", "risk", "margin"]
    steps = {step.name: step for step in why.waterfall}
    assert steps["calibration"].after_cpm == pytest.approx(1000.0 * why.pctr * 3.0)
    assert steps["risk"].after_cpm == pytest.approx(1000.0 * why.priced_pctr * 3.0)
    assert steps["risk"].change_cpm < 0.0
    assert why.waterfall[-1].after_cpm == why.bid_cpm
    assert "0.5 of sd" in str(why)
    indifferent = scorer.explain(REQUEST, scorer.line_item(value_per_click=3.0, **LINE))
    assert "risk" not in [step.name for step in indifferent.waterfall]


def test_why_adds_up_to_the_value_that_is_priced(scorer):
    line = scorer.line_item(value_per_click=3.0, value_per_conversion=9.0, risk_aversion=0.5, **LINE)
    why = why_this_price(scorer, REQUEST, line)
    assert why.value is not None
    assert why.conversion is not None
    value = why.explanation.value_cpm
    assert (why.value.total_cpm, why.conversion.total_cpm) == pytest.approx((value, value))


def test_telemetry_counts_what_is_predicted(model):
    """A monitor compares pctr with clicks, whatever is bid."""
    scorer = Scorer(parse_artifact(model))
    for rho in (0.0, 2.0):
        scorer.bid(REQUEST, scorer.line_item(value_per_click=3.0, risk_aversion=rho, **LINE))
    assert scorer.telemetry().pctr.sum == pytest.approx(
        2.0 * scorer.explain(REQUEST, scorer.line_item(value_per_click=3.0, **LINE)).pctr
    )


def test_logged_decisions_are_priced_again_to_the_bit(model, certain, tmp_path: Path):
    """With their aversion; also the no-bid of a model that knows no uncertainty."""
    folder = tmp_path / "models"
    folder.mkdir()
    scorers = [Scorer(parse_artifact(data)) for data in (model, certain)]
    for scorer, data in zip(scorers, (model, certain), strict=True):
        (folder / f"{scorer.sha256}.onnx").write_bytes(data)
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for scorer in scorers:
            for rho in (0.0, 0.7):
                line = scorer.bound_line_item(value_per_click=3.0, risk_aversion=rho, margin=0.1, **LINE)
                log.bid(scorer, REQUEST, line)
    records = read_decisions([tmp_path / "log"])
    repriced = [Repricer(folder)(record) for record in records]
    assert all(r.is_equal for r in repriced)
    assert [r.logged[1] for r in repriced] == [0, 0, 0, NoBidReason.NO_UNCERTAINTY_MODEL]
    assert "risk_aversion" not in records[0]
    assert repriced[1].logged[0] < repriced[0].logged[0]
    forgotten = {name: value for name, value in records[1].items() if name != "risk_aversion"}
    assert not Repricer(folder)(forgotten).is_equal


# ---- models that know no uncertainty ----


def test_an_aversion_to_what_the_model_does_not_know_is_refused_offline(certain):
    """Where the line item is made, and in a batch; the hot path says no with its reason."""
    scorer = Scorer(parse_artifact(certain), rates=RATES)
    with pytest.raises(ArtifactError, match="uncertainty"):
        scorer.line_item(value_per_click=3.0, risk_aversion=0.5, **LINE)
    line = scorer.bound_line_item(value_per_click=3.0, risk_aversion=0.5, deals=["d"], **LINE)
    no = (0.0, NoBidReason.NO_UNCERTAINTY_MODEL)
    assert scorer.decide(REQUEST, line) == scorer.decide_json(json.dumps(REQUEST).encode(), line) == no
    assert scorer.decide_deal(REQUEST, line)[:2] == no
    assert scorer.decide({**REQUEST, "at": 2}, line, 0, 5.0) == no
    assert scorer.best(REQUEST, [line]) == scorer.best({**REQUEST, "at": 2}, [line], 0, 5.0) == (-1, 0.0)
    assert scorer.best_deal(REQUEST, [line])[:2] == (-1, 0.0)
    assert scorer.counters()["no_uncertainty_model"] == 7
    assert scorer.explain(REQUEST, line).waterfall[-1].after_cpm == 0.0
    bold = scorer.line_item(value_per_click=3.0, **LINE)
    assert scorer.best(REQUEST, [line, bold])[0] == 1
    columns: dict[str, Any] = {name: [""] for name in ("country", "creative", "unused_text")}
    columns |= dict.fromkeys(("hour", "lat", "unused_number", "value_per_click", "floor_cpm"), 1.0)
    columns |= {"cap_cpm": 9.0, "pacing_multiplier": 1.0, "auction_type": 1.0, "risk_aversion": 0.5}
    with pytest.raises(DataError, match="uncertainty"):
        scorer.bid_many(columns, out=array("d", [0.0]))
    for name in ("pctr_log_odds_sd", "variance_margin"):
        with pytest.raises(DataError, match="uncertainty"):
            scorer.score_many(columns, {name: array("d", [0.0])})


def test_a_swap_to_a_model_without_uncertainty_stops_averse_bids_only(model, certain, tmp_path):
    """And a swap back brings them again: no exception, no bid above the one meant, a reason."""
    publish_bytes(tmp_path, model, expected_generation=0)
    following = follow(tmp_path, interval_seconds=None)
    averse = following.line_item(value_per_click=3.0, risk_aversion=0.5, **LINE)
    bold = following.line_item(value_per_click=3.0, **LINE)
    before = [following.bid(REQUEST, line) for line in (averse, bold)]
    assert 0.0 < before[0] < before[1]
    publish_bytes(tmp_path, certain, expected_generation=1)
    assert following.check()
    assert following.decide(REQUEST, averse) == (0.0, NoBidReason.NO_UNCERTAINTY_MODEL)
    assert following.bid(REQUEST, bold) == before[1]
    assert following.best(REQUEST, [averse, bold]) == (1, before[1])
    with pytest.raises(ArtifactError, match="uncertainty"):
        following.line_item(value_per_click=3.0, risk_aversion=0.5, **LINE)
    publish_bytes(tmp_path, model, expected_generation=2)
    assert following.check()
    assert [following.bid(REQUEST, line) for line in (averse, bold)] == before


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "1", True])
def test_an_aversion_is_a_number_of_at_least_0(scorer, wrong):
    for make in (scorer.line_item, scorer.bound_line_item):
        with pytest.raises(ConfigError, match="risk_aversion"):
            make(value_per_click=3.0, risk_aversion=wrong, **LINE)


@pytest.mark.parametrize("wrong", [math.nan, -1.0, -math.inf])
def test_a_batch_row_with_garbage_for_an_aversion_has_no_value(scorer, wrong):
    columns: dict[str, Any] = {name: [""] for name in ("country", "creative", "unused_text")}
    columns |= dict.fromkeys(("hour", "lat", "unused_number"), 1.0)
    columns |= {"value_per_click": 1e3, "floor_cpm": 0.0, "cap_cpm": 9.0, "pacing_multiplier": 1.0}
    found = array("d", [-7.0])
    scorer.bid_many({**columns, "auction_type": 1.0, "risk_aversion": wrong}, out=found)
    assert found[0] == 0.0


# ---- the file ----


def test_a_variance_is_of_a_click_model():
    blueprint = uncertain_blueprint()
    wrong = replace(blueprint, cvr=blueprint.ctr)
    with pytest.raises(ExportError, match="a variance is of a CTR model"):
        model_bytes(wrong, self_check_of(conversions_blueprint(), {}))


def test_names_are_reserved_beside_a_variance_only():
    """Older files may call a feature so; it stays a feature, in a batch too."""
    spec = FeatureSpec(
        (
            Feature("pctr_log_odds_sd", FeatureKind.NUMBER, "ext.sd"),
            Feature("risk_aversion", FeatureKind.NUMBER, "ext.rho"),
        )
    )
    head = Head((), None, (), -2.0)
    plain = Blueprint(spec, CtrBlueprint(head), WinBlueprint(head, head, 0.0), "EUR")
    scorer = Scorer.of_artifact(parse_artifact(file_of(plain)))
    assert not scorer.knows_uncertainty
    columns: dict[str, Any] = {"pctr_log_odds_sd": 1.0, "risk_aversion": [9.0], "value_per_click": 5.0}
    columns |= {"floor_cpm": 0.0, "cap_cpm": 9.0, "pacing_multiplier": 1.0, "auction_type": 1.0}
    found = array("d", [0.0])
    scorer.bid_many(columns, out=found)
    assert found[0] > 0.0
    uncertain = replace(plain, ctr=CtrBlueprint(head, variance=head))
    with pytest.raises(ExportError, match="no feature is named"):
        model_bytes(uncertain, self_check_of(plain, {}))


def test_a_variance_of_any_form_is_read_as_it_was_written():
    """Without a CVR model too, and without a win curve; `info` names its path."""
    for blueprint in (uncertain_blueprint(), replace(uncertain_blueprint(), cvr=None)):
        for part in (blueprint, replace(blueprint, win=None)):
            artifact = parse_artifact(file_of(part))
            assert graph_of(artifact.blueprint) == graph_of(part)
            scorer = Scorer.of_artifact(artifact)
            assert scorer.knows_uncertainty
            assert list(scorer.info()["engine"]["heads"])[-1] == "variance"


def test_a_file_that_hides_its_uncertainty_is_refused(model):
    """The variance's parts without its output, or under another name, are no part of a blueprint."""
    for old, new in ((b"pctr_log_odds_sd", b"pctr_log_odds_se"), (b"variance.margin", b"variance.nigram")):
        assert old in model
        with pytest.raises(ArtifactError):
            parse_artifact(model.replace(old, new))
