"""Models fitted by several ranks: the same on each, and as good as that of one machine with all rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from bidml.blueprint import CrossLookup
from bidml.errors import DataError
from bidml.fit import ClickModel, IdentifiabilityWarning, MarketPriceObservations, WinRateModel
from bidml.fit.crew import ALONE, Crew
from bidml.fit.encoding import Categories, Earlier, OtherFolds
from bidml.fit.ftrl import fit_ftrl
from bidml.metrics import log_loss, log_loss_from_log_odds
from tests.fit import test_ctr as clicks
from tests.fit import win_world as wins
from tests.training.ranks.threads import together

_SHARE = 0.001  # of the log loss


def share_of(log: pd.DataFrame, crew: Crew) -> pd.DataFrame:
    """Rows by chance, as a hash of their ids would have it."""
    rank = np.random.default_rng(5).integers(0, crew.size, len(log))
    return log[rank == crew.rank].reset_index(drop=True)


def every_model(found: list[Any]) -> list[Any]:
    for model in found:
        if isinstance(model, BaseException):
            raise model
    return found


def is_as_good(loss: float, of_seeds: list[float]) -> bool:
    """At most 0.1 % above what one machine makes of the same rows; its own seeds are further apart than that."""
    return loss <= max(of_seeds) * (1.0 + _SHARE)


def click_model(log: pd.DataFrame, crew: Crew = ALONE, *, seed: int = 0) -> ClickModel:
    parameters = {"n_trees": 25, "patience": 25}  # given: a few held-out rows choose by chance
    model = ClickModel(
        clicks.SPEC,
        parents={"placement": "app"},
        parameters=parameters,
        segments=("slot",),
        random_state=seed,
        n_jobs=1,
    )
    return model.fit(log, log["clicked"], crew=crew)


def win_curve(log: pd.DataFrame, crew: Crew = ALONE, *, seed: int = 0) -> WinRateModel:
    model = WinRateModel(wins.SPEC, n_location_trees=8, random_state=seed, n_jobs=1)
    return model.fit(log, MarketPriceObservations.from_log(log), crew=crew)


@pytest.fixture(scope="module")
def click_logs() -> tuple[pd.DataFrame, pd.DataFrame]:
    return clicks.click_log(6_000, seed=1, base=-2.0), clicks.click_log(20_000, seed=2, base=-2.0)


@pytest.fixture(scope="module")
def win_logs() -> tuple[pd.DataFrame, pd.DataFrame]:
    return wins.make_world(6_000, seed=3).log(), wins.make_world(20_000, seed=4).log()


@pytest.fixture(scope="module")
def click_models(click_logs: tuple[pd.DataFrame, pd.DataFrame]) -> list[ClickModel]:
    """Of one machine, by seed."""
    return [click_model(click_logs[0], seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def win_curves(win_logs: tuple[pd.DataFrame, pd.DataFrame]) -> list[WinRateModel]:
    return [win_curve(win_logs[0], seed=seed) for seed in range(3)]


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_click_models_of_ranks_are_one_and_as_good(
    n_ranks: int, click_logs: tuple[pd.DataFrame, pd.DataFrame], click_models: list[ClickModel]
) -> None:
    """Dictionaries, linear base, trees, calibration, segments, level of the traffic."""
    log, test = click_logs

    def fit(crew: Crew) -> ClickModel:
        rows = share_of(log, crew)
        every = np.ones(len(rows))
        model = click_model(rows, crew)
        return model.fit_traffic_level(
            rows, won=every, clicked=rows["clicked"], win_rate=0.5 * every, crew=crew
        )

    models = every_model(together(n_ranks, fit))
    assert len({repr(model.to_blueprint()) for model in models}) == 1
    several = models[0]
    assert [term.keys for term in several.terms_] == [term.keys for term in click_models[0].terms_]
    clicked = test["clicked"].to_numpy(float)
    losses = [
        log_loss_from_log_odds(clicked, model.predict_log_odds(test) - model.traffic_level_)
        for model in (several, click_model(log[: len(log) // n_ranks]), *click_models)
    ]
    assert is_as_good(losses[0], losses[2:])
    assert not is_as_good(losses[1], losses[2:])  # the broken twin, that learns from one rank's rows
    assert losses[0] < 0.97 * log_loss(clicked, np.full(len(test), log["clicked"].mean()))


@pytest.mark.parametrize("timed", [True, False])
def test_crosses_of_ranks_are_those_of_one_machine(
    timed: bool, click_logs: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """The same pairs, the same effects where rows are of folds: to the rounding of a sum."""
    log, test = click_logs
    log = log if timed else log.drop(columns="timestamp")

    def fit(rows: pd.DataFrame, crew: Crew = ALONE) -> ClickModel:
        model = ClickModel(
            clicks.SPEC, crosses=[("app", "slot")], parameters={"n_trees": 10, "patience": 10}, n_jobs=1
        )
        return model.fit(rows, rows["clicked"], crew=crew)

    one = fit(log)
    models = every_model(together(2, lambda crew: fit(share_of(log, crew), crew)))
    assert len({repr(model.to_blueprint()) for model in models}) == 1
    found, alone = (
        [column.lookup for column in model.columns_ if isinstance(column.lookup, CrossLookup)]
        for model in (models[0], one)
    )
    assert [cross.codes for cross in found] == [cross.codes for cross in alone]
    assert len(found) == 2
    if not timed:
        for cross, wanted in zip(found, alone, strict=True):
            assert cross.values == pytest.approx(wanted.values, rel=1e-9, abs=1e-9)
    assert models[0].predict_log_odds(test).std() > 0.1


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_win_curves_of_ranks_are_one_and_as_good(
    n_ranks: int, win_logs: tuple[pd.DataFrame, pd.DataFrame], win_curves: list[WinRateModel]
) -> None:
    """Linear base, location and slope trees, Dagum's exponents."""
    log, test = win_logs
    models = every_model(together(n_ranks, lambda crew: win_curve(share_of(log, crew), crew)))
    assert len({repr(model.to_blueprint()) for model in models}) == 1
    assert models[0].n_rows_ == len(log)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        of_one_rank = win_curve(log[: len(log) // n_ranks])
    won = test["won"].to_numpy(float)
    losses = [
        log_loss(won, model.predict_win_rate(test, test["bid_cpm"]))
        for model in (models[0], of_one_rank, *win_curves)
    ]
    assert is_as_good(losses[0], losses[2:])
    assert not is_as_good(losses[1], losses[2:])
    assert losses[0] < 0.9 * log_loss(won, np.full(len(won), won.mean()))


def test_rows_see_the_same_of_other_folds_on_any_number_of_ranks() -> None:
    """Exactly: the quantities are integers."""
    rng = np.random.default_rng(0)
    n, n_codes = 600, 9
    codes, folds = rng.integers(0, n_codes, n), rng.permutation(np.arange(n) % 5)
    quantities = rng.integers(0, 9, (n, 2)).astype(float)
    whole = OtherFolds(folds).sums(codes, n_codes, quantities)

    def job(crew: Crew) -> npt.NDArray[np.bool_]:
        mine = np.arange(n) % crew.size == crew.rank
        found = OtherFolds(folds[mine], crew).sums(codes[mine], n_codes, quantities[mine])
        return found == whole[mine]

    assert all(found.all() for found in every_model(together(3, job)))


def test_rows_see_only_earlier_rows_of_other_ranks_and_nearly_all_of_them() -> None:
    """Never more than on one machine; less by no more than the rows of one period."""
    rng = np.random.default_rng(0)
    n, n_codes = 4_000, 3
    time, codes = np.sort(rng.integers(0, 10**6, n)), rng.integers(0, n_codes, n)
    ones = np.ones((n, 1))
    whole = Earlier(time).sums(codes, n_codes, ones)

    def job(crew: Crew) -> npt.NDArray[np.float64]:
        mine = np.arange(n) % crew.size == crew.rank
        return whole[mine] - Earlier(time[mine], crew).sums(codes[mine], n_codes, ones[mine])

    unseen = np.concatenate(every_model(together(3, job)))
    assert unseen.min() >= 0.0
    assert 0.0 < unseen.max() <= n / 256 * 1.5


def test_the_linear_base_of_ranks_is_that_of_one_machine() -> None:
    """Batches are the same rows, wherever they lie; sums differ by rounding."""
    log = clicks.click_log(3_000, seed=1)
    y, time = log["clicked"].to_numpy(float), log["timestamp"].to_numpy("datetime64[ns]")

    def fit(rows: npt.NDArray[np.bool_], crew: Crew = ALONE) -> Any:
        texts = log["app"].fillna("").to_numpy(dtype=object)[rows]
        features = [Categories.of("app", texts, crew=crew)]
        return fit_ftrl(
            features, y[rows], base_log_odds=-3.0, time=time[rows], rng=np.random.default_rng(0), crew=crew
        )

    def mine(crew: Crew) -> npt.NDArray[np.bool_]:
        return np.arange(len(y)) % crew.size == crew.rank

    one = fit(np.ones(len(y), dtype=bool))
    several = every_model(together(2, lambda crew: (mine(crew), fit(mine(crew), crew))))
    for rows, found in several:
        assert (found.alpha, found.terms[0].keys) == (one.alpha, one.terms[0].keys)
        np.testing.assert_allclose(found.terms[0].values, one.terms[0].values, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(found.progressive, one.progressive[rows], rtol=0.0, atol=1e-9)


def test_a_rank_without_late_rows_is_named_on_all() -> None:
    """LightGBM would end the process, or wait for ever."""
    log = clicks.click_log(3_000, seed=1)

    def job(crew: Crew) -> ClickModel:
        half = log.iloc[:1500] if crew.rank else log.iloc[1500:]
        return ClickModel(clicks.SPEC, n_jobs=1).fit(half, half["clicked"], crew=crew)

    found = together(2, job)
    assert [type(error) for error in found] == [DataError] * 2
    assert "rank 1" in str(found[0])
