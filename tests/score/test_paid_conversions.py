"""Bids for more than clicks: one value of impressions, clicks and conversions, on every path of the runtime."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any

import pytest
from artifacts import COLUMNS, COUNTRIES_TERM, CVR_KNOTS, complete_blueprint, conversions_blueprint, trees_of
from decisions import RATES, artifact_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec, NoBidReason
from bidml.errors import ArtifactError, ConfigError, DataError, ExportError
from bidml.export import model_bytes
from bidml.oracle import row_function
from bidml.pricing import value_of_conversions_cpm
from bidml.score import DecisionLog, Scorer, follow
from bidml.score.decision_log import read_decisions
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.self_check import self_check_of
from bidml.why import why_this_price
from training.publication import publish_bytes

REQUEST: dict[str, Any] = {
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "EUR"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5}},
    "ext": {"timestamp": 1_772_366_400_000},
}
MONEY = st.sampled_from([0.0, 1e-6, 0.3, 5.0, 80.0, 4e4])


@pytest.fixture(scope="module")
def model() -> bytes:
    blueprint = conversions_blueprint()
    return model_bytes(blueprint, self_check_of(blueprint, {}))


@pytest.fixture(scope="module")
def clicks_only() -> bytes:
    blueprint = complete_blueprint()
    return model_bytes(blueprint, self_check_of(blueprint, {}))


@pytest.fixture(scope="module")
def scorer(model: bytes) -> Scorer:
    """Read from its file, its own rows replayed."""
    return Scorer.of_artifact(parse_artifact(model), rates=RATES)


def flat(ctr_log_odds: float, cvr_log_odds: float) -> Scorer:
    """The same probabilities in every auction."""
    win = WinBlueprint(Head((), None), Head((), None), 0.0)
    parts = (CtrBlueprint(Head((), None, (), log_odds)) for log_odds in (ctr_log_odds, cvr_log_odds))
    ctr, cvr = parts
    return Scorer(artifact_of(Blueprint(complete_blueprint().spec, ctr, win, "EUR", cvr=cvr)))


@given(
    country=st.sampled_from(["", "DEU", "USA", "nowhere"]),
    at=st.sampled_from([1, 2, 3]),
    floor=st.sampled_from([0.0, 0.05, 3.0]),
    amounts=st.tuples(MONEY, MONEY, MONEY),
    cap=st.sampled_from([0.5, 20.0, 1e6]),
    pacing=st.sampled_from([1.0, 0.4, 0.0]),
)
def test_every_path_gives_the_oracle_s_bid(scorer, country, at, floor, amounts, cap, pacing):
    """Dict, JSON, best, batch and plain Python; never above cap or value."""
    names = ("value_per_click", "value_per_conversion", "value_per_impression_cpm")
    money = dict(zip(names, amounts, strict=True))
    imp = {"bidfloor": floor, "bidfloorcur": "EUR"}
    request = {**REQUEST, "at": at, "imp": [imp], "device": {"geo": {"country": country, "lat": 52.5}}}
    line = scorer.line_item(creative="320x50", cap_cpm=cap, pacing_multiplier=pacing, **money)
    bid_cpm, reason = scorer.decide(request, line)
    row = {"hour": 12.0, "country": country, "lat": 52.5, "creative": "320x50", "unused_number": math.nan}
    prices = {"floor_cpm": floor, "cap_cpm": cap, "pacing_multiplier": pacing, "auction_type": float(at)}
    row |= {"unused_text": "", **money, **prices}
    wanted = row_function(scorer.blueprint)(row)
    assert bid_cpm == pytest.approx(wanted["bid_cpm"], rel=1e-12, abs=0.0)
    assert (bid_cpm > 0.0) == (reason == NoBidReason.BID)
    assert scorer.decide_json(json.dumps(request).encode(), line) == (bid_cpm, reason)
    other = scorer.line_item(creative="320x50", cap_cpm=cap, value_per_click=0.0)
    assert scorer.best(request, [other, line]) == ((1, bid_cpm) if bid_cpm > 0.0 else (-1, 0.0))
    found = array("d", [-7.0])
    scorer.bid_many({name: [cell] for name, cell in row.items()}, out=found)
    assert found[0] == bid_cpm
    value = money["value_per_impression_cpm"] + 1000.0 * wanted["pctr"] * (
        money["value_per_click"] + wanted["pcvr"] * money["value_per_conversion"]
    )
    assert 0.0 <= bid_cpm <= min(cap, value * pacing * (1.0 + 1e-12))


@given(
    pctr=st.sampled_from([1e-8, 1e-3, 0.4]),
    pcvr=st.sampled_from([1e-8, 1e-3, 0.4]),
    of_click=st.sampled_from([0.0, 1e-9, 2.0]),
    of_conversion=st.sampled_from([1e-3, 50.0, 1e12]),
    of_impression=st.sampled_from([0.0, 1e-12, 3.0]),
)
def test_small_probabilities_multiply_without_loss(pctr, pcvr, of_click, of_conversion, of_impression):
    """Value against 50 decimal digits, at 1e-8 times 1e-8 too: relative error at most 1e-9 (it is below 1e-14)."""
    getcontext().prec = 50
    odds = [math.log(p / (1.0 - p)) for p in (pctr, pcvr)]
    scorer = flat(*odds)
    line = scorer.line_item(
        creative="x",
        cap_cpm=1e6,
        value_per_click=of_click,
        value_per_conversion=of_conversion,
        value_per_impression_cpm=of_impression,
    )
    click, conversion = (1 / (1 + (-Decimal(s)).exp()) for s in odds)
    exact = Decimal(of_impression) + 1000 * click * (Decimal(of_click) + conversion * Decimal(of_conversion))
    found = Decimal(scorer.explain({"at": 1, "imp": [{}]}, line).value_cpm)
    assert abs(found - exact) <= Decimal("1e-14") * exact


def test_a_cpa_goal_is_a_click_goal_at_the_value_of_a_click(scorer):
    """The formula of `bidml.pricing`; the margin is kept off every amount."""
    line = scorer.line_item(creative="320x50", cap_cpm=1e6, value_per_conversion=900.0, margin=0.25)
    why = scorer.explain(REQUEST, line)
    assert 0.0 < why.pcvr < 1.0
    assert why.value_cpm == pytest.approx(value_of_conversions_cpm(why.pctr, why.pcvr, 900.0, margin=0.25))
    same = scorer.line_item(creative="320x50", cap_cpm=1e6, value_per_click=why.pcvr * 900.0, margin=0.25)
    assert scorer.bid(REQUEST, same) == pytest.approx(why.bid_cpm, rel=1e-12)
    assert why.waterfall[-1].after_cpm == why.bid_cpm
    assert "pcvr" in str(why)


def test_the_waterfall_begins_with_both_uncalibrated_probabilities(scorer):
    line = scorer.line_item(creative="320x50", cap_cpm=1e6, value_per_click=3.0, value_per_conversion=50.0)
    why = scorer.explain(REQUEST, line)
    ctr, cvr = (1.0 / (1.0 + math.exp(-margin)) for margin in (why.ctr_margin, why.cvr_margin))
    assert why.waterfall[0].after_cpm == pytest.approx(1000.0 * ctr * (3.0 + cvr * 50.0), rel=1e-12)
    assert why.waterfall[1].after_cpm == pytest.approx(why.value_cpm)


def test_why_says_what_the_conversion_rate_is_made_of(scorer):
    """Its parts add up to the value, as those of the click rate do; a click goal has none."""
    line = scorer.line_item(creative="320x50", cap_cpm=1e6, value_per_conversion=50.0, value_per_click=1.0)
    why = why_this_price(scorer, REQUEST, line)
    assert why.conversion is not None
    assert why.value is not None
    value_cpm = why.explanation.value_cpm
    assert (why.conversion.total_cpm, why.value.total_cpm) == pytest.approx((value_cpm, value_cpm))
    assert why.conversion.margin == pytest.approx(why.explanation.cvr_margin)
    assert why.to_json()["conversion"]["total_cpm"] == pytest.approx(value_cpm)
    of_clicks = scorer.line_item(creative="320x50", cap_cpm=1e6, value_per_click=1.0)
    assert why_this_price(scorer, REQUEST, of_clicks).conversion is None


def test_a_click_goal_bids_as_without_the_conversion_head(scorer, clicks_only):
    """To the last bit: who pays for clicks only is not touched by the other head."""
    plain = Scorer(parse_artifact(clicks_only))
    for country in ("DEU", "USA", "", "nowhere"):
        request = {**REQUEST, "device": {"geo": {"country": country}}}
        bids = [
            s.bid(request, s.line_item(creative="320x50", value_per_click=20.0, cap_cpm=90.0))
            for s in (scorer, plain)
        ]
        assert bids[0] == bids[1] > 0.0


def test_best_prefers_by_surplus_whatever_is_paid_for(scorer):
    """More than one block of line items, goals mixed; each alone bids as in the internal auction."""
    goals = [{"value_per_click": 0.2}, {"value_per_conversion": 9.0}, {"value_per_impression_cpm": 2.0}]
    lines = [
        scorer.line_item(
            creative="320x50", cap_cpm=50.0, **{k: v * (1 + i % 7) for k, v in goals[i % 3].items()}
        )
        for i in range(40)
    ]
    whys = [scorer.explain(REQUEST, line) for line in lines]
    wanted = max(range(40), key=lambda i: (whys[i].expected_surplus_cpm, -i))
    index, bid_cpm = scorer.best(REQUEST, lines)
    assert whys[index].expected_surplus_cpm == pytest.approx(whys[wanted].expected_surplus_cpm)
    assert bid_cpm == scorer.bid(REQUEST, lines[index]) == whys[index].bid_cpm


def test_telemetry_counts_conversion_rates_that_were_paid_for(model):
    """Not those of click goals."""
    scorer = Scorer(parse_artifact(model))
    scorer.bid(REQUEST, scorer.line_item(creative="a", cap_cpm=9.0, value_per_click=1.0))
    assert scorer.telemetry().pcvr.count == 0
    line = scorer.line_item(creative="a", cap_cpm=9.0, value_per_conversion=5.0)
    for _ in range(3):
        scorer.bid(REQUEST, line)
    assert scorer.telemetry().pcvr.count == 3
    assert scorer.telemetry().pcvr.sum == pytest.approx(3.0 * scorer.explain(REQUEST, line).pcvr)
    assert scorer.telemetry().pctr.count == 4


# ---- models that predict no conversions ----


def test_conversions_from_a_model_without_them_are_refused_offline(clicks_only):
    """Where the line item is made, and in a batch; the hot path says no with its reason."""
    scorer = Scorer(parse_artifact(clicks_only))
    with pytest.raises(ArtifactError, match="CVR"):
        scorer.line_item(creative="a", cap_cpm=9.0, value_per_conversion=5.0)
    line = scorer.bound_line_item(creative="a", cap_cpm=9.0, value_per_conversion=5.0, value_per_click=90.0)
    no = (0.0, NoBidReason.NO_CONVERSION_MODEL)
    assert scorer.decide(REQUEST, line) == no
    assert scorer.decide_json(json.dumps(REQUEST).encode(), line) == no
    assert scorer.best(REQUEST, [line]) == (-1, 0.0)
    assert scorer.counters()["no_conversion_model"] == 3
    assert scorer.explain(REQUEST, line).waterfall[-1].after_cpm == 0.0
    paying = scorer.line_item(creative="a", cap_cpm=9.0, value_per_click=90.0)
    assert scorer.best(REQUEST, [line, paying])[0] == 1
    columns: dict[str, Any] = {name: [""] for name in ("country", "creative", "unused_text")}
    columns |= dict.fromkeys(("hour", "lat", "unused_number", "value_per_click", "floor_cpm"), 1.0)
    columns |= {"cap_cpm": 9.0, "pacing_multiplier": 1.0, "auction_type": 1.0, "value_per_conversion": 5.0}
    with pytest.raises(DataError, match="CVR"):
        scorer.bid_many(columns, out=array("d", [0.0]))
    with pytest.raises(DataError, match="CVR"):
        scorer.score_many(columns, {"pcvr": array("d", [0.0])})


def test_a_line_item_is_worth_something(scorer):
    with pytest.raises(ConfigError, match="worth something"):
        scorer.line_item(creative="a", cap_cpm=9.0)
    for name in ("value_per_click", "value_per_conversion", "value_per_impression_cpm"):
        for wrong in (-1.0, math.nan, math.inf, "1", True):
            with pytest.raises(ConfigError, match=name):
                scorer.line_item(creative="a", cap_cpm=9.0, **{name: wrong})


@pytest.mark.parametrize("name", ["value_per_conversion", "value_per_impression_cpm"])
@pytest.mark.parametrize("wrong", [math.nan, -1.0, -math.inf])
def test_a_batch_row_with_garbage_for_money_has_no_value(scorer, name, wrong):
    columns: dict[str, Any] = {key: [""] for key in ("country", "creative", "unused_text")}
    columns |= dict.fromkeys(("hour", "lat", "unused_number"), 1.0)
    columns |= {"value_per_click": 1e3, "floor_cpm": 0.0, "cap_cpm": 9.0, "pacing_multiplier": 1.0}
    found = array("d", [-7.0])
    scorer.bid_many({**columns, "auction_type": 1.0, name: wrong}, out=found)
    assert found[0] == 0.0


def test_a_swap_to_a_model_without_conversions_stops_their_bids_only(model, clicks_only, tmp_path):
    """And a swap back brings them again: no exception, no overpay, a reason."""
    publish_bytes(tmp_path, model, expected_generation=0)
    following = follow(tmp_path, interval_seconds=None)
    terms = {"creative": "320x50", "cap_cpm": 90.0}
    acquires = following.line_item(value_per_conversion=900.0, **terms)
    clicks = following.line_item(value_per_click=20.0, **terms)
    before = [following.bid(REQUEST, line) for line in (acquires, clicks)]
    assert min(before) > 0.0
    publish_bytes(tmp_path, clicks_only, expected_generation=1)
    assert following.check()
    assert following.decide(REQUEST, acquires) == (0.0, NoBidReason.NO_CONVERSION_MODEL)
    assert following.bid(REQUEST, clicks) == before[1]
    assert following.best(REQUEST, [acquires, clicks]) == (1, before[1])
    with pytest.raises(ArtifactError, match="CVR"):
        following.line_item(value_per_conversion=900.0, **terms)
    publish_bytes(tmp_path, model, expected_generation=2)
    assert following.check()
    assert [following.bid(REQUEST, line) for line in (acquires, clicks)] == before


def test_logged_decisions_of_every_goal_are_priced_again_to_the_bit(model, clicks_only, tmp_path: Path):
    """Also the no-bid of a model that predicts no conversions."""
    folder = tmp_path / "models"
    folder.mkdir()
    scorers = [Scorer(parse_artifact(data)) for data in (model, clicks_only)]
    for scorer, data in zip(scorers, (model, clicks_only), strict=True):
        (folder / f"{scorer.sha256}.onnx").write_bytes(data)
    goals = [
        {"value_per_click": 0.7},
        {"value_per_conversion": 31.0, "value_per_click": 0.1},
        {"value_per_impression_cpm": 0.9},
    ]
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for scorer in scorers:
            for goal in goals:
                line = scorer.bound_line_item(creative="a", cap_cpm=9.0, margin=0.1, **goal)
                log.bid(scorer, REQUEST, line)
    records = read_decisions([tmp_path / "log"])
    repriced = [Repricer(folder)(record) for record in records]
    assert len(repriced) == 6
    assert all(r.is_equal for r in repriced)
    reasons = [r.logged[1] for r in repriced]
    assert reasons == [0, 0, 0, 0, NoBidReason.NO_CONVERSION_MODEL, 0]
    old = json.loads(json.dumps(records[0]))  # a record from before conversions
    del old["line_item"]["value_per_conversion"], old["line_item"]["value_per_impression_cpm"]
    assert Repricer(folder)(old).is_equal


# ---- the file ----


def test_a_conversion_model_stands_beside_a_click_model():
    blueprint = replace(conversions_blueprint(), ctr=None)
    with pytest.raises(ExportError, match="beside a CTR model"):
        model_bytes(blueprint, self_check_of(complete_blueprint(), {}))


def test_names_are_reserved_beside_a_conversion_model_only():
    """Older files may call a feature so; it stays a feature, in a batch too."""
    spec = FeatureSpec(
        (
            Feature("pcvr", FeatureKind.NUMBER, "ext.pcvr"),
            Feature("value_per_conversion", FeatureKind.NUMBER, "ext.v"),
        )
    )
    head = Head((), None, (), -2.0)
    plain = Blueprint(spec, CtrBlueprint(head), WinBlueprint(head, head, 0.0), "EUR")
    data = model_bytes(plain, self_check_of(plain, {}))
    scorer = Scorer.of_artifact(parse_artifact(data))
    columns: dict[str, Any] = {"pcvr": 1.0, "value_per_conversion": [9.0], "value_per_click": 5.0}
    columns |= {"floor_cpm": 0.0, "cap_cpm": 9.0, "pacing_multiplier": 1.0, "auction_type": 1.0}
    found = array("d", [0.0])
    scorer.bid_many(columns, out=found)
    assert found[0] > 0.0
    with pytest.raises(ExportError, match="no feature is named"):
        model_bytes(replace(plain, cvr=CtrBlueprint(head)), self_check_of(plain, {}))


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(),
        Calibration(2.0, 2.0, 1.0),
        Calibration(0.5, 1.5, -3.0),
        Calibration(1.0, 1.0, 0.0, CVR_KNOTS),
        Calibration(0.5, 1.5, -3.0, CVR_KNOTS),
    ],
)
def test_a_conversion_head_of_any_form_is_read_as_it_was_written(calibration):
    """Trees or none, terms or none, each calibration; `info` names its path."""
    for head in (
        Head((), None, (COUNTRIES_TERM,), -4.0),
        Head(COLUMNS[:1], trees_of((0, 3.0, True, 0.5, -0.5)), (), 0.0, 1.5, 3.0),
    ):
        blueprint = replace(complete_blueprint(), cvr=CtrBlueprint(head, calibration))
        artifact = parse_artifact(model_bytes(blueprint, self_check_of(blueprint, {})))
        assert artifact.blueprint.cvr == blueprint.cvr
        scorer = Scorer.of_artifact(artifact)
        assert list(scorer.info()["engine"]["heads"]) == ["ctr", "location", "log_slope", "cvr"]
    assert "cvr" not in Scorer(artifact_of(complete_blueprint())).info()["engine"]["heads"]
