"""The win curve: laws of the curve, equality with the artifact, known worlds recovered, degenerate logs refused."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bidml.blueprint import Blueprint
from bidml.errors import BidmlError, ConfigError, DataError, SpecError
from bidml.export import model_bytes, write_artifact
from bidml.features import raw_columns
from bidml.fit import FallbackWarning, IdentifiabilityWarning, MarketPriceObservations, WinRateModel
from bidml.fit.censored import CensoredLikelihood, global_curve
from bidml.fit.dagum import curve_nll
from bidml.log import infer_spec, read_log
from bidml.pricing import WinCurve
from bidml.score import Scorer
from bidml.self_check import self_check_of
from tests.fit.win_world import SPEC, World, make_world

QUICK = {"n_jobs": 1, "n_location_trees": 30, "location_learning_rate": 0.25, "n_slope_trees": 15}


def fit(world: World, feedback: str = "closed", **options: object) -> WinRateModel:
    model = WinRateModel(SPEC, **(QUICK | options))  # type: ignore[arg-type]
    return model.fit(world.X, MarketPriceObservations.from_log(world.log(feedback)))


@pytest.fixture(scope="module")
def train() -> World:
    return make_world(20_000, seed=1)


@pytest.fixture(scope="module")
def test() -> World:
    return make_world(20_000, seed=2)


@pytest.fixture(scope="module")
def model(train: World) -> WinRateModel:
    return fit(train)


# ---- laws ----------------------------------------------------------------------------------------------------


def test_win_rate_is_monotone_in_bid(model: WinRateModel, test: World) -> None:
    """From 0 to 1, for every auction."""
    X = test.X.head(200)
    rates = np.array([model.predict_win_rate(X, bid) for bid in (0.0, 1e-9, 0.1, 1.0, 2.0, 5.0, 50.0, 1e12)])
    assert (np.diff(rates, axis=0) >= 0.0).all()
    assert (rates[0] == 0.0).all()
    assert (rates[-1] > 0.999).all()
    assert ((rates[3:6] > 0.0) & (rates[3:6] < 1.0)).all()


def test_the_world_is_recovered(model: WinRateModel, train: World, test: World) -> None:
    """Surplus near the oracle's from wins and losses alone; well above one curve for all."""
    of_oracle, calibration = test.surplus_of_oracle(model.predict_curve(test.X))
    assert of_oracle > 0.965
    assert calibration == pytest.approx(1.0, abs=0.04)
    y = MarketPriceObservations.from_log(train.log())
    beta, a = global_curve(CensoredLikelihood(y, reference_log_bid_cpm=0.0))
    one_for_all = WinCurve(np.full(len(test.X), -beta), np.exp(a))
    assert test.surplus_of_oracle(one_for_all)[0] < of_oracle - 0.03


def test_prices_tell_more_than_wins(train: World, test: World) -> None:
    """Held-out likelihood of the true prices: exact on all ≥ exact on wins ≥ win or loss."""
    truth = MarketPriceObservations.from_log(test.log("both"))
    nll = []
    for feedback in ("both", "wins", "closed"):
        curve = fit(train, feedback).predict_curve(test.X)
        nll.append(curve_nll(truth, curve.location, curve.shape, curve.gamma).mean())
    assert nll[0] <= nll[1] + 0.002
    assert nll[1] <= nll[2] + 0.002
    best = curve_nll(truth, test.truth.location, test.truth.shape, 1.0).mean()
    assert nll[0] < best + 0.12


def test_second_price_feedback_is_min_bid_feedback(train: World) -> None:
    """The same statement about the price, whatever column it came in: the same model."""
    a, b = (fit(train, feedback).predict_curve(train.X.head(100)) for feedback in ("second", "wins"))
    np.testing.assert_array_equal(a.location, b.location)


def test_truncated_prices_are_recovered(test: World) -> None:
    """A log without the auctions below their floors teaches the same prices, if it is told so."""
    world = make_world(20_000, seed=3)
    log = world.log("wins")
    rng = np.random.default_rng(0)
    log["floor_cpm"] = world.market_price_cpm.mean() * rng.uniform(0.1, 0.6, len(log))
    kept = (world.market_price_cpm > log["floor_cpm"]) & (log["bid_cpm"] > log["floor_cpm"])
    error = {}
    for floors in ("truncate", "ignore"):
        model = WinRateModel(SPEC, **QUICK)  # type: ignore[arg-type]
        model.fit(world.X[kept], MarketPriceObservations.from_log(log[kept], floors=floors))
        location = model.predict_curve(test.X).quantile_cpm(0.5)
        error[floors] = float(np.mean(np.log(location) - test.truth.location))
    assert abs(error["truncate"]) < 0.06
    assert error["ignore"] > 0.12


def test_other_losses_are_not_about_the_price(train: World, test: World) -> None:
    """A third of the bids rejected for their creative: the same curve if told so, a lower one if not."""
    log = train.log()
    blocked = np.random.default_rng(0).random(len(log)) < 0.33
    log.loc[blocked, "won"] = False
    log["loss_reason"] = pd.array(np.where(blocked, 203, 102), dtype="Int64")
    log.loc[log["won"], "loss_reason"] = pd.NA
    X = test.X.head(5000)
    told = WinRateModel(SPEC, **QUICK).fit(train.X, MarketPriceObservations.from_log(log))  # type: ignore[arg-type]
    assert told.n_rows_ == (~blocked).sum()
    untold = WinRateModel(SPEC, **QUICK).fit(  # type: ignore[arg-type]
        train.X, MarketPriceObservations.from_log(log.drop(columns="loss_reason"))
    )
    truth = test.truth.win_rate(test.bid_cpm)[:5000].mean()
    assert told.predict_win_rate(X, test.bid_cpm[:5000]).mean() == pytest.approx(truth, abs=0.02)
    assert untold.predict_win_rate(X, test.bid_cpm[:5000]).mean() < truth - 0.1


def test_weights_undo_sampled_losses(train: World, test: World) -> None:
    """A quarter of the losses kept, each counting for four."""
    log = train.log()
    kept = log["won"] | (np.random.default_rng(0).random(len(log)) < 0.25)
    log, X = log[kept], train.X[kept]
    y = MarketPriceObservations.from_log(log, weight=np.where(log["won"], 1.0, 4.0))
    weighted = WinRateModel(SPEC, **QUICK).fit(X, y)  # type: ignore[arg-type]
    truth = test.truth.win_rate(test.bid_cpm).mean()
    assert weighted.predict_win_rate(test.X, test.bid_cpm).mean() == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"slope": "global"},
        {"base": "none"},
        {"calibration": "none"},
        {"refit": False},
        {"family": "log_normal"},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_fits(train: World, test: World, options: dict[str, object]) -> None:
    """And does what its name says."""
    model = fit(train, **options)
    win = model.to_blueprint()
    assert (win.log_slope.trees is None) == ("slope" in options)
    assert bool(win.location.terms) == ("base" not in options)
    assert win.family == options.get("family", "log_logistic")
    assert ((win.slope_scale, win.logit_shift, win.gamma) == (1.0, 0.0, 1.0)) == ("calibration" in options)
    assert test.surplus_of_oracle(model.predict_curve(test.X))[0] > 0.95


# ---- the artifact --------------------------------------------------------------------------------------------


def artifact_of(model: WinRateModel) -> Blueprint:
    return Blueprint(spec=SPEC, ctr=None, win=model.to_blueprint(), currency="USD")


def test_the_artifact_computes_the_same_curve(model: WinRateModel, test: World, tmp_path: Path) -> None:
    """`bidml.score` to 1e-12 on unseen rows with missing and unknown values; onnxruntime by the certificate."""
    X = test.X.head(3000).copy()
    X.loc[:100, "site"] = "never-seen.example"
    X.loc[100:200, "geo"] = None
    X.loc[200:300, "viewability"] = np.nan
    raw = raw_columns(X, SPEC)
    write_artifact(
        artifact_of(model),
        tmp_path / "win.onnx",
        sample_rows={name: cells.tolist() for name, cells in raw.items()},
    )
    found = {name: array("d", bytes(8 * len(X))) for name in ("win_location", "win_shape")}
    columns = {name: cells.tolist() if cells.dtype == object else cells for name, cells in raw.items()}
    Scorer.load(tmp_path / "win.onnx").score_many(columns, found)
    curve = model.predict_curve(X)
    np.testing.assert_allclose(found["win_location"], curve.location, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["win_shape"], curve.shape, rtol=1e-12)
    assert (curve.gamma == model.to_blueprint().gamma).all()


def test_the_defaults_fit_the_latency_budget() -> None:
    """At most 100 location trees and 100 slope trees of depth at most 5 (DESIGN.md 3)."""
    model = WinRateModel(SPEC)
    assert model.n_location_trees <= 100
    assert model.n_slope_trees <= 100
    assert model.location_depth <= 5
    assert model.slope_leaves <= 6  # leaf-wise: at most 5 deep


def test_same_data_same_bytes(train: World) -> None:
    """Two fits write the same file, whatever the number of threads; another seed another one."""
    small = make_world(5_000, seed=4)
    files = []
    for options in ({"n_jobs": 1}, {"n_jobs": 2}, {"random_state": 1}):
        blueprint = artifact_of(fit(small, **options))  # type: ignore[arg-type]
        files.append(model_bytes(blueprint, self_check_of(blueprint, {})))
    assert files[0] == files[1] != files[2]


def test_the_order_of_columns_does_not_matter(model: WinRateModel, test: World) -> None:
    """Columns are found by name, further ones ignored."""
    X = test.X.head(50)
    a, b = model.predict_curve(X), model.predict_curve(X[X.columns[::-1]].assign(noise=1.0))
    np.testing.assert_array_equal(a.location, b.location)


# ---- habits of scikit-learn ----------------------------------------------------------------------------------


def test_clone_and_parameters() -> None:
    """get_params, set_params, clone; an unfitted model says so."""
    model = WinRateModel(SPEC, slope="global", random_state=3)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.set_params(base="none").base == "none"
    with pytest.raises(NotFittedError):
        copy.predict_curve(pd.DataFrame())


@pytest.mark.parametrize(
    "options",
    [
        {"family": "weibull"},
        {"slope": "linear"},
        {"base": None},
        {"calibration": "isotonic"},
        {"validation_fraction": 1.0},
    ],
)
def test_unknown_options_are_refused(options: dict[str, object]) -> None:
    """A `ConfigError` that names the option."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        fit(make_world(100, seed=0), **options)


# ---- degenerate logs -----------------------------------------------------------------------------------------

SMALL = make_world(1500, seed=5)


def _all_won(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(won=True)


def _all_lost(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(won=False)


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no losses": (_all_won, "above something"),
    "no wins": (_all_lost, "below something"),
    "censored everywhere": (lambda log: _all_lost(log).assign(loss_reason=203), "20 auctions"),
    "one bid value": (lambda log: log.assign(bid_cpm=1.5), "bids must vary"),
    "too few rows": (lambda log: log.head(12), "20 auctions"),
    "a zero bid": (lambda log: log.assign(bid_cpm=0.0), "bid is a positive"),
    "a NaN bid": (lambda log: log.assign(bid_cpm=np.nan), "bid is a positive"),
    "two currencies": (lambda log: log.assign(currency=["USD", "EUR"] * 750), "one currency"),
    "a missing feature": (lambda log: log.drop(columns="site"), "site"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_that_teaches_nothing_is_refused(name: str) -> None:
    """A typed error with rule, value, remedy."""
    change, rule = REFUSED[name]
    log = change(SMALL.log())
    with pytest.raises((DataError, SpecError), match=rule) as error:
        WinRateModel(SPEC).fit(log, MarketPriceObservations.from_log(log))
    assert isinstance(error.value, BidmlError)
    assert error.value.remedy


def test_x_and_y_have_one_length() -> None:
    """Row i of X is observation i."""
    with pytest.raises(DataError, match="one observation per row"):
        WinRateModel(SPEC).fit(SMALL.X.head(100), MarketPriceObservations.from_log(SMALL.log()))


def _checked(model: WinRateModel) -> WinCurve:
    curve = model.predict_curve(SMALL.X)
    assert np.isfinite(curve.location).all()
    assert np.isfinite(curve.shape).all()
    write_check = Blueprint(spec=SPEC, ctr=None, win=model.to_blueprint(), currency="USD")
    assert model_bytes(write_check, self_check_of(write_check, {}))
    return curve


def test_one_bid_value_with_prices_is_enough() -> None:
    """Exact prices identify the curve alone; that the bids do not vary is no weakness then."""
    log = SMALL.log("both").assign(bid_cpm=1.5)
    log["won"] = log["bid_cpm"] >= log["min_bid_to_win_cpm"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _checked(WinRateModel(SPEC).fit(log, MarketPriceObservations.from_log(log)))


@pytest.mark.filterwarnings("ignore::bidml.fit.IdentifiabilityWarning")
def test_a_small_log_falls_back_with_a_warning() -> None:
    """No trees below 1,000 rows: said, and still a curve per category."""
    log = SMALL.log().head(400)
    with pytest.warns(FallbackWarning, match="category weights"):
        model = WinRateModel(SPEC).fit(log, MarketPriceObservations.from_log(log))
    assert model.to_blueprint().location.trees is None
    _checked(model)


@pytest.mark.filterwarnings("ignore::bidml.fit.IdentifiabilityWarning")
@pytest.mark.parametrize(("rule", "meaning"), [(1.0, "decides the auction"), (-1.0, "hardly win more")])
def test_outcomes_that_are_a_rule_on_the_bid_warn(rule: float, meaning: str) -> None:
    """Perfect separation, either way round: finite curves and a warning."""
    log = SMALL.log()
    log["won"] = rule * (log["bid_cpm"] - log["bid_cpm"].median()) > 0.0
    with pytest.warns(FallbackWarning, match=meaning):
        model = WinRateModel(SPEC).fit(log, MarketPriceObservations.from_log(log))
    _checked(model)


@pytest.mark.filterwarnings("ignore::bidml.fit.IdentifiabilityWarning")
def test_one_market_price_warns() -> None:
    """Every auction cleared at the same price: as steep as allowed."""
    log = SMALL.log("both").assign(min_bid_to_win_cpm=1.25)
    log["won"] = log["bid_cpm"] >= 1.25
    with pytest.warns(FallbackWarning, match="decides the auction"):
        model = WinRateModel(SPEC).fit(log, MarketPriceObservations.from_log(log))
    assert np.median(model.predict_curve(SMALL.X).quantile_cpm(0.5)) == pytest.approx(1.25, rel=0.05)


def test_bids_that_follow_the_features_warn() -> None:
    """Wins and losses at bids that are a function of x: the fit stands, with a warning that asks for exploration."""
    world = make_world(6_000, seed=6, bid_sd=0.0)
    with pytest.warns(IdentifiabilityWarning, match="random factor"):
        model = fit(world)
    assert model.identifiability_.bid_r2 > 0.95
    assert not model.identifiability_.identified


# ---- real auctions -------------------------------------------------------------------------------------------


def test_real_auctions_with_known_prices(shared_data: Path) -> None:
    """iPinYou 2259: trained on censored rows, judged by the true market price of others, against one curve for all."""
    columns = {"clicked": "click", "bid_cpm": "bid", "true_market_price_cpm": "market_price", "ip": "IP"}
    logs = [
        read_log(
            shared_data / f"ipinyou_2259_censored_{part}.parquet",
            format="parquet", columns=columns, currency="CNY", auction_type=2, price_unit="centi_cpm",
        )
        for part in ("train", "test")
    ]  # fmt: skip
    train, test = logs
    spec = infer_spec(train)
    y = MarketPriceObservations.from_log(train)
    assert y.exact.mean() == pytest.approx(train["won"].mean())
    curve = WinRateModel(spec).fit(train, y).predict_curve(test)
    everything = WinRateModel(infer_spec(train, ["advertiser"]), base="none", slope="global").fit(train, y)
    nll = {}
    truth = MarketPriceObservations.from_log(
        test.assign(min_bid_to_win_cpm=test["true_market_price_cpm"], loss_reason=pd.NA)
    )
    seen = MarketPriceObservations.from_log(test)
    for name, c in (("model", curve), ("one curve", everything.predict_curve(test))):
        nll[name] = curve_nll(truth, c.location, c.shape, c.gamma).mean()
        nll[f"{name}, as observed"] = curve_nll(seen, c.location, c.shape, c.gamma).mean()
    assert nll["model"] < nll["one curve"] - 0.05
    assert nll["model, as observed"] < nll["one curve, as observed"] - 0.05
