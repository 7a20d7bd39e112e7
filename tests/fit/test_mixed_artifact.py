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
from bidml.fit import ClickModel
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


def click_log(*, together: float = 0.0, pairs: float = 0.0) -> pd.DataFrame:
    """Numbers and categories add up, but for what `together` the two numbers do, and `pairs` the categories."""
    rng = np.random.default_rng(5)
    app, slot = rng.integers(0, 30, N), rng.integers(0, 8, N)
    depth, seen = rng.normal(size=N), rng.random(N)
    s = -3.0 + rng.normal(0.0, 0.4, 30)[app] + rng.normal(0.0, pairs, (30, 8))[app, slot] - 0.5 * depth
    s += together * np.sign(depth) * np.sign(seen - 0.5)
    clicked = rng.random(N) < expit(s)
    depth[rng.random(N) < 0.1] = np.nan
    times = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(N), "s")
    texts = {"app": app.astype(str).astype(object), "slot": slot.astype(str).astype(object)}
    return pd.DataFrame({**texts, "depth": depth, "seen": seen, "timestamp": times, "clicked": clicked})


@pytest.mark.parametrize(
    ("together", "pairs", "has_trees"), [(0.0, 0.0, False), (0.7, 0.0, True), (0.0, 0.8, False)]
)
def test_the_artifact_computes_what_the_model_predicts(
    tmp_path: Path, together: float, pairs: float, has_trees: bool
) -> None:
    """Steps of numbers on and beside their edges, missing and infinite ones; crosses that were found; trees only where
    what adds up does not do."""
    log = click_log(together=together, pairs=pairs)
    model = ClickModel(SPEC, n_jobs=1).fit(log, log["clicked"])
    assert (model.booster_.num_trees() > 0) == has_trees
    assert list(model.found_crosses_) == ([("app", "slot")] if pairs else [])
    blueprint = Blueprint(SPEC, model.to_blueprint(), None, "USD")
    assert blueprint.ctr is not None
    assert blueprint.ctr.head.trees is not None
    assert any(isinstance(term, CrossLookup) for term in blueprint.ctr.head.terms) == bool(pairs)
    around = [
        np.concatenate(
            [number.edges, np.nextafter(number.edges, -np.inf), np.nextafter(number.edges, np.inf)]
        )
        for number, _ in model.steps_
    ]
    extreme = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300]
    rows = log[:2_000].copy()
    for name, at_edges in zip(("depth", "seen"), around, strict=True):
        rows[name] = np.resize(np.concatenate([at_edges, extreme, rows[name][:100]]), len(rows))
    rows.loc[:300, "app"] = "never seen"
    raw = raw_columns(rows, SPEC)
    write_artifact(
        blueprint, tmp_path / "m.onnx", sample_rows={name: cells[:50].tolist() for name, cells in raw.items()}
    )
    found = {"pctr": np.empty(len(rows))}
    Scorer.load(tmp_path / "m.onnx").score_many({name: cells.tolist() for name, cells in raw.items()}, found)
    assert np.allclose(found["pctr"], model.predict_proba(rows)[:, 1], rtol=1e-12, atol=0.0)
    assert np.ptp(np.log(found["pctr"])) > 0.5
