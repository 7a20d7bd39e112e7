"""Crosses: a pair is a category whose effect is beyond those of its two, learnt without its own outcome."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, CrossLookup
from bidml.contract import MAX_CROSSES, Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError
from bidml.export import write_artifact
from bidml.features import looked_up, margins, raw_columns
from bidml.fit import ClickModel
from bidml.fit.calibration import calibrated
from bidml.fit.crosses import CrossedCategories, cross_categories
from bidml.fit.encoding import Categories, Earlier, OtherFolds, OutcomeEvidence, effect_column
from bidml.fit.tree_inputs import TreeInputs
from bidml.metrics import auc, log_loss_from_log_odds
from bidml.score import Scorer

C = FeatureKind.CATEGORY
SPEC = FeatureSpec(
    (Feature("app", C, "app.bundle"), Feature("slot", C, "imp.tagid"), Feature("os", C, "device.os"))
)


def coded(name: str, cells: Any, **options: int) -> Categories:
    texts = np.asarray(cells).astype(str).astype(object)
    return Categories.of(name, texts, **{"min_count": 1, **options})


def crossed(one: Any, other: Any, **options: int) -> CrossedCategories:
    sides = {"app": coded("app", one), "slot": coded("slot", other)}
    (found,) = cross_categories(sides, [("app", "slot")], **{"min_count": 1, **options}).values()
    return found


def texts_of(**columns: Any) -> dict[str, Any]:
    return {name: np.asarray(cells).astype(str).astype(object) for name, cells in columns.items()}


def click_log(n: int, *, seed: int, strength: float) -> pd.DataFrame:
    """Apps and slots with effects of their own, and one of each pair, `strength` the spread of ln odds."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(0)
    app, slot = np.minimum(rng.pareto(1.0, n) * 8, 59).astype(int), rng.integers(0, 12, n)
    s = -2.5 + world.normal(0, 0.5, 60)[app] + world.normal(0, 0.3, 12)[slot]
    s += world.normal(0, strength, (60, 12))[app, slot]
    log = pd.DataFrame(texts_of(app=app, slot=slot, os=rng.integers(0, 3, n)))
    log["timestamp"] = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(n), "s")
    return log.assign(clicked=rng.random(n) < 1.0 / (1.0 + np.exp(-s)), log_odds=s)


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40)


@given(pairs, st.integers(1, 3), st.integers(1, 6))
def test_the_code_of_a_pair_is_the_place_of_its_two_texts(
    rows: list[tuple[int, int]], min_count: int, max_keys: int
) -> None:
    """Rows of one kept pair share a code that no other row has; what the lookup finds is what was learnt."""
    one, other = zip(*rows, strict=True)
    found = crossed(one, other, min_count=min_count, max_keys=max_keys)
    counts = {pair: rows.count(pair) for pair in rows}
    kept = {pair for pair, code in zip(rows, found.codes, strict=True) if code < found.n_keys}
    known = [pair for pair, n in counts.items() if n >= min_count]
    assert len(kept) == min(max_keys, len(known)) or (not known and len(kept) == 1)
    assert not known or min(counts[pair] for pair in kept) >= max(
        [counts[pair] for pair in known if pair not in kept], default=min_count
    )
    by_pair = {pair: set(found.codes[[row == pair for row in rows]]) for pair in kept}
    assert all(len(codes) == 1 for codes in by_pair.values())
    assert len(set.union(*by_pair.values())) == len(kept)
    served = np.arange(found.n_codes, dtype=float)
    assert (looked_up(found.lookup(served), texts_of(app=one, slot=other)) == served[found.codes]).all()


def test_a_text_that_no_side_knows_is_paired_as_the_pool() -> None:
    """The pool of rare apps in a slot is a pair like others; a pair of two known texts never seen together is not."""
    one, other = ["a"] * 4 + ["rare", "rarer"] + ["b"] * 4, ["x"] * 4 + ["x", "x"] + ["y"] * 4
    sides = {"app": coded("app", one, min_count=3), "slot": coded("slot", other)}
    (found,) = cross_categories(sides, [("app", "slot")], min_count=2).values()
    lookup = found.lookup(np.array([1.0, 2.0, 3.0, 9.0]))
    cells = texts_of(app=["a", "b", "never", "a", "b", "never"], slot=["x", "y", "x", "y", "x", "y"])
    assert looked_up(lookup, cells).tolist() == [1.0, 2.0, 3.0, 9.0, 9.0, 9.0]


@given(pairs, st.data())
def test_no_training_value_depends_on_its_own_or_a_later_outcome(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Flip one outcome: in time order only later values of its pair move, out of fold only other folds'."""
    n = len(rows)
    when = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=float)
    i = data.draw(st.integers(0, n - 1))
    flipped = y.copy()
    flipped[i] = 1.0 - flipped[i]
    categories = crossed(*zip(*rows, strict=True))
    for visibility, blind in ((Earlier(when), when <= when[i]), (OtherFolds(when), when == when[i])):
        before, after = (
            effect_column(
                categories, OutcomeEvidence(outcome, np.full(n, 0.3)), visibility, shrinkage=2.0
            ).values
            for outcome in (y, flipped)
        )
        moved = before != after
        assert not (moved & blind).any()
        assert moved[(categories.codes == categories.codes[i]) & ~blind].all()


@pytest.mark.parametrize("n_slots", [150, 4])
@pytest.mark.parametrize("timed", [True, False])
def test_a_cross_of_two_columns_of_noise_teaches_nothing(timed: bool, n_slots: int) -> None:
    """20,000 pairs in 40,000 rows of coin tosses, of two categories of 150, or of one that is rare itself: AUC
    0.5 ± 0.02 on new rows, and a model that knows that it knows nothing."""
    rng = np.random.default_rng(3)

    def rows(n: int) -> tuple[pd.DataFrame, Any]:
        n_apps = 20_000 // n_slots
        app, slot, os = rng.integers(0, n_apps, n), rng.integers(0, n_slots, n), rng.integers(0, 3, n)
        return pd.DataFrame(texts_of(app=app, slot=slot, os=os)), rng.random(n) < 0.2

    X, y = rows(40_000)
    model = ClickModel(
        SPEC, n_jobs=1, crosses=[("app", "slot")], base="linear" if timed else "none", min_count=1
    )
    model.fit(X, y, timestamp=np.arange(len(X)) if timed else None)
    assert model.dictionaries_["app*slot"][0] > 12_000
    X, y = rows(40_000)
    assert auc(y, model.predict_log_odds(X)) == pytest.approx(0.5, abs=0.02)
    assert model.predict_proba(X)[:, 1].std() < 0.02


def test_a_child_of_rare_parents_does_not_read_its_own_outcome_without_time() -> None:
    """20,000 slots of 8,000 apps in 40,000 coin tosses: no training value knows its outcome, AUC 0.5 ± 0.02 on new
    rows, and a model that knows that it knows nothing."""
    rng = np.random.default_rng(3)

    def rows(n: int) -> tuple[pd.DataFrame, Any]:
        app, os = rng.integers(0, 8_000, n), rng.integers(0, 3, n)
        return pd.DataFrame(texts_of(app=app, slot=3 * app + rng.integers(0, 3, n), os=os)), rng.random(
            n
        ) < 0.2

    X, y = rows(40_000)
    parents = {"slot": "app"}
    rate, folds = np.full(len(X), 0.2), OtherFolds.random(len(X), rng=rng)
    inputs = TreeInputs.learn(
        raw_columns(X, SPEC), SPEC, y.astype(float), folds, expected=rate, parents=parents, min_count=1
    )
    for values in inputs.training.T:
        assert auc(y, values) == pytest.approx(0.5, abs=0.015)
    model = ClickModel(SPEC, n_jobs=1, parents=parents, min_count=1).fit(X, y)
    X, y = rows(40_000)
    assert auc(y, model.predict_log_odds(X)) == pytest.approx(0.5, abs=0.02)
    assert model.predict_proba(X)[:, 1].std() < 0.02


@pytest.mark.parametrize("base", ["mixed", "linear", "none"])
def test_what_two_categories_do_together_is_learnt(base: str) -> None:
    """Pairs with effects of their own: most of what the additive model leaves to be known, out of sample. And where
    there are none, next to nothing is lost."""
    for strength, gains in ((0.7, True), (0.0, False)):
        train, test = (click_log(n, seed=seed, strength=strength) for n, seed in ((60_000, 1), (40_000, 2)))
        plain, crossed = (
            ClickModel(SPEC, n_jobs=1, base=base, crosses=crosses).fit(train, train["clicked"])
            for crosses in ([], [("app", "slot")])
        )
        p = 1.0 / (1.0 + np.exp(-test["log_odds"]))
        least, without, with_cross = (
            log_loss_from_log_odds(p, s)
            for s in (test["log_odds"], plain.predict_log_odds(test), crossed.predict_log_odds(test))
        )
        if gains:
            assert with_cross - least < 0.7 * (without - least)
        else:
            assert with_cross - without < 0.002 * least


def test_the_artifact_computes_what_the_model_predicts(tmp_path: Any) -> None:
    """Linear terms and tree columns of two crosses that share a side, unseen and missing texts: the scorer's margin is
    the model's, the file is certified by onnxruntime."""
    train, test = (click_log(n, seed=seed, strength=0.7) for n, seed in ((20_000, 1), (3_000, 2)))
    test.loc[:500, "app"] = "never seen"
    test.loc[400:900, "slot"] = None
    model = ClickModel(
        SPEC, n_jobs=1, base="linear", crosses=[("app", "slot"), ("slot", "os")], segments=("os",)
    )
    blueprint = Blueprint(SPEC, model.fit(train, train["clicked"]).to_blueprint(), None, "USD")
    assert blueprint.ctr is not None
    crosses = [lookup for lookup in blueprint.ctr.head.lookups if isinstance(lookup, CrossLookup)]
    assert len(crosses) == 2 * 3  # effect, count or rank, weight
    assert len({id(side) for cross in crosses for side in cross.sides}) == 3
    raw = raw_columns(test, SPEC)
    write_artifact(
        blueprint, tmp_path / "m.onnx", sample_rows={name: c[:50].tolist() for name, c in raw.items()}
    )
    scorer = Scorer.load(tmp_path / "m.onnx")
    found = {"ctr_margin": np.empty(len(test))}
    scorer.score_many({name: cells.tolist() for name, cells in raw.items()}, found)
    offline = margins(raw, blueprint.ctr.head)
    assert np.allclose(found["ctr_margin"], offline, rtol=0.0, atol=1e-12)
    assert np.allclose(
        calibrated(model.calibration_, offline), model.predict_log_odds(test), rtol=0.0, atol=1e-12
    )


def test_a_pair_that_was_not_seen_is_as_its_two() -> None:
    """Its lookups give the pool's values, which say next to nothing: κ holds a handful of rows at no effect."""
    train = click_log(60_000, seed=1, strength=0.7)
    model = ClickModel(SPEC, n_jobs=1, crosses=[("app", "slot")], min_count=20).fit(train, train["clicked"])
    effects = next(c.lookup for c in model.columns_ if isinstance(c.lookup, CrossLookup))
    spread = float(np.std(effects.values))
    assert spread > 0.3
    assert abs(effects.default) < 0.5 * spread


@pytest.mark.parametrize(
    "crosses",
    [
        "app",
        None,
        [("app", "no such")],
        [("app", "app")],
        [("app",)],
        ["ap"],
        [("app", "slot"), ("slot", "app")],
        [("app", "slot", "os")],
    ],
)
def test_a_wrong_cross_is_refused_before_anything_is_learnt(crosses: Any) -> None:
    log = click_log(100, seed=1, strength=0.0)
    with pytest.raises(ConfigError, match="cross"):
        ClickModel(SPEC, n_jobs=1, crosses=crosses).fit(log, log["clicked"])


def test_crosses_are_bounded() -> None:
    """As the artifact's are."""
    names = [f"c{i}" for i in range(13)]
    spec = FeatureSpec(tuple(Feature(name, C, f"ext.{name}") for name in names))
    every = [(a, b) for a, b in product(names, names) if a < b]
    assert len(every) > MAX_CROSSES
    log = pd.DataFrame({name: ["x", "y"] for name in names})
    with pytest.raises(ConfigError, match=f"at most {MAX_CROSSES} crosses"):
        ClickModel(spec, n_jobs=1, crosses=every).fit(log, [0, 1], timestamp=[0, 1])
