"""A click model with the mixed base as the bidder computes it, and when it has trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bidml.blueprint import Blueprint, CrossLookup
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.export import write_artifact
from bidml.features import raw_columns
from bidml.fit import ClickModel, bases, boosting
from bidml.score import Scorer

SPEC = FeatureSpec(
    (
        Feature("app", FeatureKind.CATEGORY, "app.bundle"),
        Feature("slot", FeatureKind.CATEGORY, "imp.tagid"),
        Feature("depth", FeatureKind.NUMBER, "imp.ext.depth"),
        Feature("seen", FeatureKind.NUMBER, "imp.ext.seen"),
    )
)
N = 30_000


def click_log(*, together: float = 0.0, pairs: float = 0.0, slopes: float = 0.0) -> pd.DataFrame:
    """Numbers and categories add up, but for what `together` the two numbers do, `pairs` the categories and `slopes`
    the slots with a number."""
    rng = np.random.default_rng(5)
    app, slot = rng.integers(0, 30, N), rng.integers(0, 8, N)
    depth, seen = rng.normal(size=N), rng.random(N)
    s = -3.0 + rng.normal(0.0, 0.4, 30)[app] + rng.normal(0.0, pairs, (30, 8))[app, slot] - 0.5 * depth
    s += together * np.sign(depth) * np.sign(seen - 0.5) + slopes * np.linspace(-1.0, 1.0, 8)[slot] * depth
    clicked = rng.random(N) < expit(s)
    depth[rng.random(N) < 0.1] = np.nan
    times = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(N), "s")
    texts = {"app": app.astype(str).astype(object), "slot": slot.astype(str).astype(object)}
    return pd.DataFrame({**texts, "depth": depth, "seen": seen, "timestamp": times, "clicked": clicked})


def check_artifact(model: ClickModel, log: pd.DataFrame, tmp_path: Path) -> None:
    """The scorer's pctr is the model's; the file is certified by onnxruntime."""
    blueprint = Blueprint(SPEC, model.to_blueprint(), None, "USD")
    assert blueprint.ctr is not None
    assert blueprint.ctr.head.trees is not None
    around = {
        steps.number.feature: [
            steps.number.edges,
            np.nextafter(steps.number.edges, -np.inf),
            np.nextafter(steps.number.edges, np.inf),
        ]
        for steps in model.steps_
    }
    extreme = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300]
    rows = log[:2_000].copy()
    for name in ("depth", "seen"):
        rows[name] = np.resize(np.concatenate([*around.get(name, []), extreme, rows[name][:100]]), len(rows))
    rows.loc[:300, "app"] = "never seen"
    raw = raw_columns(rows, SPEC)
    write_artifact(
        blueprint, tmp_path / "m.onnx", sample_rows={name: cells[:50].tolist() for name, cells in raw.items()}
    )
    found = {"pctr": np.empty(len(rows))}
    Scorer.load(tmp_path / "m.onnx").score_many({name: cells.tolist() for name, cells in raw.items()}, found)
    assert np.allclose(found["pctr"], model.predict_proba(rows)[:, 1], rtol=1e-12, atol=0.0)
    assert np.ptp(np.log(found["pctr"])) > 0.5


@pytest.mark.parametrize(
    ("together", "pairs", "slopes", "has_trees"),
    [(0.0, 0.0, 0.0, False), (1.2, 0.0, 0.0, True), (0.0, 0.8, 0.0, False), (0.0, 0.0, 0.5, False)],
)
def test_the_artifact_computes_what_the_model_predicts(
    tmp_path: Path, together: float, pairs: float, slopes: float, has_trees: bool
) -> None:
    """Steps of numbers on and beside their edges, missing and infinite ones; crosses that were found; a category's own
    steps; trees only where all that does not do."""
    log = click_log(together=together, pairs=pairs, slopes=slopes)
    model = ClickModel(SPEC, n_jobs=1).fit(log, log["clicked"])
    assert (model.booster_.num_trees() > 0) == has_trees
    wanted = [("app", "slot")] * bool(pairs) + [("slot", "depth")] * bool(slopes)
    assert list(model.found_crosses_) == wanted
    assert sum(steps.lookup is not None for steps in model.steps_) == bool(slopes)
    assert bool(model.steps_) == (not together)  # numbers that go together are left to the trees
    assert any(isinstance(term, CrossLookup) for term in model.terms_) == bool(pairs)
    check_artifact(model, log, tmp_path)


def test_trees_and_steps_of_one_number_are_one_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees pay, and the base with the numbers goes best with them."""
    gains = iter([np.inf, -1.0])
    monkeypatch.setattr(boosting, "_gain", lambda d, crew: next(gains))
    log = click_log(together=0.3)
    model = ClickModel(SPEC, n_jobs=1).fit(log, log["clicked"])
    assert model.booster_.num_trees() > 0
    assert len(model.steps_) == 2
    head = model.to_blueprint().head
    assert sorted(column.feature for column in head.columns if column.lookup is None) == ["depth", "seen"]
    check_artifact(model, log, tmp_path)


@pytest.mark.parametrize("options", [{}, {"pairs": 0.8}, {"slopes": 0.5}])
def test_what_is_served_has_the_rate_of_the_log(
    options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing moves. Set on the scores beforehand, which are less spread, it was up to a seventh above."""
    monkeypatch.setattr(bases, "late_level", lambda *args, **kwargs: 0.0)
    log = click_log(**options)[:6_000]
    p = ClickModel(SPEC, n_jobs=1).fit(log, log["clicked"]).predict_proba(log)[:, 1]
    assert p.mean() == pytest.approx(log["clicked"].mean(), rel=1e-3)


def test_ten_events_are_no_judges_of_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen logs of 600 rows of noise, a tenth clicked: no tree. By a plain standard error some would have trees."""

    def n_with_trees() -> int:
        found = 0
        for seed in range(15):
            rng = np.random.default_rng(seed)
            log = click_log()[:600].assign(depth=rng.normal(size=600), seen=rng.random(600))
            found += ClickModel(SPEC, n_jobs=1).fit(log, rng.random(600) < 0.1).booster_.num_trees() > 0
        return found

    assert n_with_trees() == 0
    monkeypatch.setattr(boosting, "_EVENTS_THAT_JUDGE", 0.0)
    assert n_with_trees() > 0
