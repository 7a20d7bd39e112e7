"""The gate: no sabotaged candidate passes, healthy ones do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zoo as candidates
from sabotage import KNOWN_MISSES, SABOTAGE
from scipy import special
from zoo import CAP_CPM, Zoo, artifact, open_zoo, true_surplus

from bidml.errors import ArtifactError, ConfigError
from bidml.features import raw_columns
from bidml.pricing import WinCurve
from bidml.resample import block_interval
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.train.config import PricingConfig
from bidml.train.evaluate import Terms, predict
from training import latency
from training.config import GateConfig
from training.gate import Verdict, judge
from training.gate.probability import _speaks_for
from training.latency import latency_ratio
from training.mixture import fit_mixture
from training.referee import Opinion, Referee

CONFIG = GateConfig()
PRICING = PricingConfig(cap_cpm=CAP_CPM)
N_CTR, N_WIN = 5, 6  # 4 · 5 healthy challengers, and the champion's own


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return open_zoo(N_CTR, N_WIN)


@pytest.fixture(scope="module")
def champion(zoo: Zoo) -> bytes:
    return artifact(zoo.healthy(0, 0))


_KNOWN: dict[tuple[str, bool], Verdict] = {}


def verdict_on(zoo: Zoo, champion: bytes | None, name: str) -> Verdict:
    """Judged once: there is one zoo, and its champion or none."""
    key = (name, champion is None)
    if key not in _KNOWN:
        _KNOWN[key] = judged(zoo, champion, name)
    return _KNOWN[key]


def judged(zoo: Zoo, champion: bytes | None, name: str) -> Verdict:
    made = SABOTAGE[name](zoo, zoo.healthy(1, 1))
    return judge(
        made if isinstance(made, bytes) else artifact(made), champion, zoo.test, CONFIG, pricing=PRICING
    )


def failed(verdict: Verdict) -> str:
    return "; ".join(check.name for check in verdict.checks if not check.passed)


def test_there_are_thirty_ways_to_be_wrong() -> None:
    """And more."""
    assert len(SABOTAGE) >= 30


@pytest.mark.parametrize("name", list(SABOTAGE))
def test_a_sabotaged_candidate_is_never_promoted(zoo: Zoo, champion: bytes, name: str) -> None:
    """One flaw each; the verdict says why."""
    verdict = verdict_on(zoo, champion, name)
    assert not verdict.promoted
    assert verdict.reasons


@pytest.mark.parametrize("name", list(KNOWN_MISSES))
def test_what_may_pass_for_a_healthy_model_costs_little(zoo: Zoo, name: str) -> None:
    """Known misses: whatever the gate says of them, each costs under 1 % of the surplus, by the truth."""
    healthy = zoo.healthy(1, 1)
    made = KNOWN_MISSES[name](zoo, healthy)
    data = made if isinstance(made, bytes) else artifact(made)
    for other in (healthy, zoo.healthy(0, 0)):
        lost = 1.0 - true_surplus(zoo, data) / true_surplus(zoo, artifact(other))
        assert lost < 0.01, f"{lost:.2%}"


def test_healthy_candidates_are_promoted(zoo: Zoo, champion: bytes) -> None:
    """At least 19 of 20."""
    verdicts = [
        judge(artifact(zoo.healthy(c, w)), champion, zoo.test, CONFIG, pricing=PRICING)
        for c in range(1, N_CTR)
        for w in range(1, N_WIN)
    ]
    assert len(verdicts) == 20
    refused = [verdict.reasons for verdict in verdicts if not verdict.promoted]
    assert len(refused) <= 1, refused


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("clicks: sign flip", "CTR log loss"),
        ("clicks: times 10", "CTR calibration"),
        ("clicks: times 10", "mean bid"),
        ("clicks: three times too sure", "moved by more"),
        ("clicks: no app was seen", "unseen app_bundle (CTR)"),
        ("clicks: sign flip", "surplus"),
        ("clicks: odds times 1.5", "CTR calibration"),
        ("clicks: odds times 1.5", "surplus"),
        ("clicks: category effects shuffled", "CTR: the challenger's part"),
        ("clicks: leaves shuffled", "surplus"),
        ("clicks: training cut short", "surplus"),
        ("clicks: odds over 1.5", "CTR calibration"),
        ("clicks: odds times 1.5", "CTR calibration of the worst"),
        ("clicks: one campaign's odds doubled", "surplus"),
        ("prices: leaves shuffled", "win rate: the challenger's part"),
        ("prices: four times too vague", "surplus"),
        ("prices: times 1.3", "win rate log loss"),
        ("prices: one for all", "win rate information kept"),
        ("clicks: constant base rate", "CTR information kept"),
        ("wrong currency", "currency"),
        ("stale", "data end"),
        ("one day only", "window"),
        ("truncated data", "rows learnt from"),
        ("the hour read as the weekday", "sources"),
        ("four thousand trees", "latency"),
        ("a flipped bit in the calibration", "certificate"),
        ("no win curve", "parts"),
    ],
)
def test_the_check_that_is_meant_for_a_flaw_finds_it(
    zoo: Zoo, champion: bytes, name: str, check: str
) -> None:
    """Not by luck of another check."""
    assert check in failed(verdict_on(zoo, champion, name))


def test_a_leak_that_is_also_in_the_held_out_log_is_too_good(zoo: Zoo, champion: bytes) -> None:
    """The pipeline fills a feature in after the click, always: every metric shines."""
    made = artifact(replace(zoo.healthy(1, 1), ctr=zoo.leaky))
    verdict = judge(made, champion, zoo.leaking_test, CONFIG, pricing=PRICING)
    assert "CTR log loss is credible" in failed(verdict)


def test_a_first_model_is_judged_by_itself(zoo: Zoo) -> None:
    """A healthy one may begin; what is miscalibrated, worse than the base rate, stale or slow may not."""
    assert judge(artifact(zoo.healthy(1, 1)), None, zoo.test, CONFIG, pricing=PRICING).promoted
    for name in (
        "clicks: sign flip",
        "clicks: times 10",
        "prices: times 3",
        "stale",
        "a NaN leaf",
        "wrong currency",
    ):
        assert not verdict_on(zoo, None, name).promoted


def test_the_champion_itself_passes(zoo: Zoo, champion: bytes) -> None:
    """Every comparison with itself is level."""
    verdict = judge(champion, champion, zoo.test, CONFIG, pricing=PRICING)
    assert verdict.promoted
    levels = {check.name: check.value for check in verdict.checks}
    assert levels["surplus, relative to the champion's"] == 0.0
    assert levels["mean bid, relative to the champion's"] == 1.0
    assert levels["CTR log loss, relative to the champion"] == 0.0


def test_a_verdict_is_json_and_the_same_again(zoo: Zoo, champion: bytes) -> None:
    """But for the time it took."""

    def found() -> list[dict[str, Any]]:
        document = judged(zoo, champion, "prices: times 1000").to_json()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["promoted"] is False
        return [check for check in document["checks"] if check["name"] != "latency"]

    assert found() == found()


def test_a_broken_champion_or_missing_terms_are_errors_not_verdicts(zoo: Zoo, champion: bytes) -> None:
    """The gate judges the challenger; what it judges with must be sound."""
    with pytest.raises(ArtifactError):
        judge(champion, champion[:-1], zoo.test, CONFIG, pricing=PRICING)
    with pytest.raises(ConfigError, match="worth"):
        judge(champion, champion, zoo.test.drop(columns="value_per_click"), CONFIG, pricing=PRICING)


# ---- its instruments ----


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """90 % of 200 samples, within what chance allows; also where neighbours resemble each other."""
    rng = np.random.default_rng(1)
    for correlated in (False, True):
        covered = 0
        for _ in range(200):
            x = rng.normal(size=2000) if not correlated else np.repeat(rng.normal(size=1000), 2)
            y = 1.0 + rng.normal(size=2000)
            found = block_interval(lambda a, b: a / b, x + 1.0, y, confidence=0.9, rng=rng)
            covered += 1.0 in found
        assert 160 <= covered <= 198


def test_a_mixture_gives_equal_forecasts_equal_parts_and_useless_ones_none() -> None:
    """Known truth; errors of equal size; a copy, a constant and noise beside the truth."""
    rng = np.random.default_rng(3)
    n = 40_000
    log_odds = rng.normal(-2.0, 1.0, n)
    y = rng.random(n) < special.expit(log_odds)
    a, b = (special.expit(log_odds + rng.normal(0.0, 0.4, n)) for _ in range(2))

    def part(first: Any, second: Any) -> tuple[float, float]:
        share = fit_mixture([first, second], y).share(2000, rng)
        return float(np.nanquantile(share, 0.025)), float(np.nanquantile(share, 0.975))

    low, high = part(a, b)
    assert low < 0.5 < high < low + 0.2
    worse = special.expit(log_odds + rng.normal(0.0, 0.8, n))
    assert part(worse, a)[1] < 0.4
    assert part(rng.permutation(a), a)[1] < 0.1
    assert part(1.0 - b, a)[1] < 0.0
    low, high = part(a, a)
    assert low < 0.45 < high  # nothing is certain of a copy
    low, high = part(np.full(n, 0.1), a)
    assert low < 0.45 < high  # nor of a constant: log loss knows it
    mixed = fit_mixture([1.0 - b, a], y)
    assert mixed.weights[0] == 0.0
    assert mixed.weights[1] > 0.7
    assert mixed([1.0 - b, a]).mean() == pytest.approx(y.mean(), rel=0.02)


def test_the_level_of_a_segment_is_told_apart_as_rarely_as_it_says() -> None:
    """An e-value: where the challenger is right it exceeds 20 in at most one of 20 logs, whatever the champion says."""
    rng = np.random.default_rng(4)
    events = rng.poisson(100.0, 20_000)
    for champion in (50.0, 80.0, 95.0, 110.0, 200.0):
        evidence = _speaks_for(champion, 100.0, events)
        assert (evidence >= np.log(20.0)).mean() <= 0.05
    assert (_speaks_for(150.0, 100.0, rng.poisson(150.0, 1000)) >= np.log(20.0)).mean() > 0.9


def test_the_lift_s_interval_is_as_wide_as_its_clicks_are_few(zoo: Zoo) -> None:
    """What the clicks leave open is part of it: a tenth of the auctions, some three times the width."""
    widths = []
    for rows in (slice(None), slice(None, None, 10)):
        log = zoo.test.iloc[rows].reset_index(drop=True)
        pctrs = [
            predict(Scorer(parse_artifact(artifact(zoo.healthy(i, 0)))), raw_columns(log, zoo.spec)).pctr
            for i in (0, 1)
        ]
        n = len(log)
        ones = np.ones(n)
        curve = WinCurve(np.zeros(n), ones)
        terms = Terms(ones, 0.0 * ones, 1e6 * ones, ones)
        bids = [30.0 * p for p in pctrs if p is not None]
        opinions = [Opinion(p, curve, b) for p, b in zip(pctrs, bids, strict=True) if p is not None]
        lift = Referee(log, terms, opinions).lift(
            bids[1], bids[0], confidence=0.95, rng=np.random.default_rng(0)
        )
        assert lift.low < lift.value < lift.high
        widths.append(lift.high - lift.low)
    assert 1.8 < widths[1] / widths[0] < 6.0


def test_the_referee_knows_certain_outcomes(zoo: Zoo) -> None:
    """A known market price decides; without one, a won auction is won by every higher bid, a lost one by no lower."""
    log = zoo.test[:2000].reset_index(drop=True)
    n = len(log)
    ones = np.ones(n)
    curve = WinCurve(np.zeros(n), ones)
    terms = Terms(ones, np.zeros(n), 1e6 * ones, ones)
    referee = Referee(log, terms, [Opinion(0.1 * ones, curve, ones)])
    value = referee.surplus_cpm(np.full(n, 1e-9))  # hardly a bid: hardly a win
    assert (np.abs(value[log["min_bid_to_win_cpm"].notna()]) < 1e-6).all()
    logged = log["bid_cpm"].to_numpy()
    known = log["min_bid_to_win_cpm"].to_numpy()
    at_logged = referee.surplus_cpm(logged)
    won, judged = log["won"].to_numpy(), referee.counts
    unknown = np.isnan(known)
    assert (at_logged[judged & ~won & unknown] == 0.0).all()
    worth = 1000.0 * 0.1
    assert (at_logged[judged & won & unknown] != 0.0).all()
    sure = judged & ~unknown
    high = referee.surplus_cpm(np.full(n, 99.0))[sure]
    assert np.ptp(high + 99.0) < worth * 10.0
    assert ((high != 0.0) == (known[sure] <= 99.0)).all()


def test_no_model_is_its_own_judge(zoo: Zoo) -> None:
    """Ten times the clicks in one opinion change the referee's values little: the log's clicks set the level.

    Who believes in the opposite is hardly heard: beside its own contrary a model has the difference of the weights, and
    what the clicks allow of a slope below 1 is halved.
    """
    log = zoo.test
    scorer = Scorer(parse_artifact(artifact(zoo.healthy(0, 0))))
    pctr = np.zeros(len(log))
    scorer.score_many(candidates.columns_of(zoo), {"pctr": pctr})
    curve = WinCurve(np.zeros(len(log)), np.ones(len(log)))
    ones = np.ones(len(log))
    terms = Terms(ones, 0.0 * ones, 1e6 * ones, ones)
    bids = np.ones(len(log))
    honest, boastful = (
        Referee(
            log, terms, [Opinion(pctr, curve, bids), Opinion(np.minimum(factor * pctr, 0.99), curve, bids)]
        )
        for factor in (1.0, 10.0)
    )
    level = honest.surplus_cpm(bids).sum() / boastful.surplus_cpm(bids).sum()
    assert 0.9 < level < 1.1
    contrary = Referee(log, terms, [Opinion(pctr, curve, bids), Opinion(1.0 - pctr, curve, bids)])
    assert contrary.mixture.weights[1] < 0.1 * contrary.mixture.weights[0]
    assert contrary.surplus_cpm(bids) == pytest.approx(honest.surplus_cpm(bids), rel=1e-3, abs=0.05)


def test_the_latency_ratio_is_steady_and_knows_slow_from_quick(zoo: Zoo) -> None:
    """In units of the workload, on a busy machine, too."""
    quick = Scorer(parse_artifact(artifact(zoo.healthy(0, 0))))
    made = SABOTAGE["four thousand trees"](zoo, zoo.healthy(0, 0))
    assert not isinstance(made, bytes)
    slow = Scorer(parse_artifact(artifact(made)))
    columns = candidates.columns_of(zoo)
    ratios = [latency_ratio(quick, columns) for _ in range(3)]
    assert max(ratios) < 2.0 * min(ratios)
    assert latency_ratio(slow, columns) > 2.0 * max(ratios)
    workload, rows = latency._workload()
    assert 0.7 < latency_ratio(workload, rows) < 1.5
