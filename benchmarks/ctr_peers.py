"""What a user would pick instead, each tuned with the same effort: two settings, judged on the last 15 % of training.

A peer is a function (train raw, y, test raw, spec, timed) → log-odds of the test rows. Raw columns are those of
`features.raw_columns`; rows are in time order where there is time. Trees stop early on the same last part.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureKind, FeatureSpec
from bidml.metrics import log_loss_from_log_odds

Doubles: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]
Raw: TypeAlias = Mapping[str, Any]
Peer: TypeAlias = Callable[[Raw, Doubles, Raw, FeatureSpec], Doubles]

N_JOBS = int(os.environ.get("BENCH_JOBS", min(2, os.cpu_count() or 1)))
MAX_TREES, PATIENCE = 1_000, 30
HELD_OUT = 0.15
MIN_COUNT = 3


def base_rate(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    rate = y.mean()
    return np.full(len(next(iter(test.values()))), np.log(rate) - np.log1p(-rate))


def logistic_regression(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    """One-hot categories seen three times or more, standardised numbers with a flag for missing ones."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories, numbers = _names(spec)
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=MIN_COUNT), categories),
        (
            make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler()),
            numbers,
        ),
    )

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], c: float) -> list[Doubles]:
        model = make_pipeline(encoder, LogisticRegression(C=c, max_iter=200, tol=1e-3))
        model.fit(_frame(raw, spec), outcome)
        return [model.decision_function(_frame(other, spec)) for other in others]

    return _best_of((0.02, 0.2), fit, train, y, test)


def hist_gradient_boosting(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    """Its categories are at most 255; the rest are pooled by frequency."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], rate: float) -> list[Doubles]:
        table, (*others_coded,) = _coded(raw, others, spec, most=254)
        model = HistGradientBoostingClassifier(
            learning_rate=rate,
            max_iter=MAX_TREES,
            early_stopping=True,
            n_iter_no_change=PATIENCE,
            validation_fraction=HELD_OUT,
            categorical_features=[feature.kind is FeatureKind.CATEGORY for feature in spec.features],
            random_state=0,
        )
        model.fit(table, outcome)
        return [model.decision_function(other) for other in others_coded]

    return _best_of((0.03, 0.1), fit, train, y, test)


def lightgbm_native(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    import lightgbm as lgb

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], leaves: int) -> list[Doubles]:
        table, (*others_coded,) = _coded(raw, others, spec, most=1 << 30)
        first, last = _split(len(outcome))
        where = [i for i, feature in enumerate(spec.features) if feature.kind is FeatureKind.CATEGORY]
        options = {
            "objective": "binary",
            "num_leaves": leaves,
            "learning_rate": 0.05,
            "min_data_in_leaf": 50,
            "verbose": -1,
            "num_threads": N_JOBS,
            "seed": 0,
        }
        data = lgb.Dataset(table[first], outcome[first], categorical_feature=where)
        stop = lgb.Dataset(table[last], outcome[last], reference=data, categorical_feature=where)
        quiet = lgb.early_stopping(PATIENCE, verbose=False)
        model = lgb.train(options, data, MAX_TREES, valid_sets=[stop], callbacks=[quiet])
        return [np.asarray(model.predict(other, raw_score=True)) for other in others_coded]

    return _best_of((15, 63), fit, train, y, test)


def catboost(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    from catboost import CatBoostClassifier, Pool

    categories, _ = _names(spec)

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], depth: int) -> list[Doubles]:
        table = _frame(raw, spec)
        first, last = _split(len(outcome))
        model = CatBoostClassifier(
            iterations=MAX_TREES,
            depth=depth,
            learning_rate=0.06,
            has_time=True,
            thread_count=N_JOBS,
            random_seed=0,
            verbose=False,
            allow_writing_files=False,
        )
        data = Pool(table.iloc[first], outcome[first], cat_features=categories)
        stop = Pool(table.iloc[last], outcome[last], cat_features=categories)
        model.fit(data, eval_set=stop, early_stopping_rounds=PATIENCE)
        pools = [Pool(_frame(other, spec), cat_features=categories) for other in others]
        return [np.asarray(model.predict(pool, prediction_type="RawFormulaVal")) for pool in pools]

    return _best_of((4, 6), fit, train, y, test)


def xgboost(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    import xgboost as xgb

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], depth: int) -> list[Doubles]:
        table, (*others_coded,) = _coded(raw, others, spec, most=20_000)
        types = ["c" if feature.kind is FeatureKind.CATEGORY else "float" for feature in spec.features]

        def matrix(cells: Doubles, labels: Doubles | None = None) -> Any:
            return xgb.DMatrix(cells, labels, feature_types=types, enable_categorical=True, nthread=N_JOBS)

        first, last = _split(len(outcome))
        options = {
            "objective": "binary:logistic",
            "max_depth": depth,
            "eta": 0.06,
            "tree_method": "hist",
            "nthread": N_JOBS,
            "seed": 0,
        }
        stop = matrix(table[last], outcome[last])
        model = xgb.train(
            options,
            matrix(table[first], outcome[first]),
            MAX_TREES,
            evals=[(stop, "stop")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        until = (0, model.best_iteration + 1)
        return [
            np.asarray(model.predict(matrix(other), output_margin=True, iteration_range=until), dtype=float)
            for other in others_coded
        ]

    return _best_of((4, 6), fit, train, y, test)


def vowpal_wabbit(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    """Hashed logistic regression, adaptive and normalised, 22 bits; with and without all pairs of features."""
    from vowpalwabbit import Workspace

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], crosses: str) -> list[Doubles]:
        model = Workspace(f"--loss_function logistic --link identity -b 22 --quiet {crosses}")
        for label, line in zip(outcome, _vw_lines(raw, spec), strict=True):
            model.learn(f"{1 if label else -1} {line}")
        found = [np.array([model.predict(line) for line in _vw_lines(other, spec)]) for other in others]
        model.finish()
        return found

    return _best_of(("", "-q cc -l 0.25"), fit, train, y, test)


def factorization_machine(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    """Vectors of 8 numbers, plain and field-weighted; numbers in 16 bins of equal frequency."""
    from benchmarks.factorization_machine import FactorizationMachine

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], is_weighted: bool) -> list[Doubles]:
        table, others_coded = _coded(raw, others, spec, most=1 << 30)
        codes, (*others_codes,), n_values = _fields(table, others_coded, spec)
        first, last = _split(len(outcome))
        model = FactorizationMachine(n_values, codes.shape[1], is_weighted, l2=1.0)
        model.fit(codes[first], outcome[first], codes[last], outcome[last])
        return [model.log_odds(other) for other in others_codes]

    return _best_of((False, True), fit, train, y, test)


def river_ftrl(train: Raw, y: Doubles, test: Raw, spec: FeatureSpec) -> Doubles:
    """One pass over one-hot categories and numbers scaled by their spread."""
    from river.optim import FTRLProximal

    scales = {name: float(np.nanstd(train[name])) or 1.0 for name in _names(spec)[1]}

    def rows(raw: Raw) -> Any:
        names = list(raw)
        for cells in zip(*(raw[name] for name in names), strict=True):
            yield {
                **{
                    f"{name}={cell}": 1.0
                    for name, cell in zip(names, cells, strict=True)
                    if isinstance(cell, str)
                },
                **{
                    name: cell / scales[name]
                    for name, cell in zip(names, cells, strict=True)
                    if not isinstance(cell, str) and cell == cell
                },
            }

    def fit(raw: Raw, outcome: Doubles, others: Sequence[Raw], alpha: float) -> list[Doubles]:
        from river.linear_model import LogisticRegression

        model = LogisticRegression(
            FTRLProximal(alpha=alpha, l1=0.0, l2=1.0), intercept_init=_logit(outcome.mean())
        )
        for label, row in zip(outcome, rows(raw), strict=True):
            model.learn_one(row, bool(label))
        return [
            np.array(
                [
                    _logit(min(max(model.predict_proba_one(row)[True], 1e-12), 1 - 1e-12))
                    for row in rows(other)
                ]
            )
            for other in others
        ]

    return _best_of((0.02, 0.1), fit, train, y, test)


PEERS: dict[str, tuple[str, Peer]] = {
    "base rate": ("numpy", base_rate),
    "scikit-learn LogisticRegression": ("sklearn", logistic_regression),
    "scikit-learn HistGradientBoosting": ("sklearn", hist_gradient_boosting),
    "LightGBM, native categories": ("lightgbm", lightgbm_native),
    "CatBoost": ("catboost", catboost),
    "XGBoost": ("xgboost", xgboost),
    "Vowpal Wabbit": ("vowpalwabbit", vowpal_wabbit),
    "factorization machine": ("numpy", factorization_machine),
    "river FTRL": ("river", river_ftrl),
}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _best_of(settings: Sequence[Any], fit: Any, train: Raw, y: Doubles, test: Raw) -> Doubles:
    """Each setting is learnt on the first rows, judged on the last; the better one is learnt again on all rows."""
    first, last = _split(len(y))
    part, held = ({name: cells[rows] for name, cells in train.items()} for rows in (first, last))
    losses = [
        log_loss_from_log_odds(y[last], fit(part, y[first], [held], setting)[0]) for setting in settings
    ]
    best = settings[int(np.argmin(losses))]
    found: Doubles = fit(train, y, [test], best)[0]
    return found


def _split(n_rows: int) -> tuple[slice, slice]:
    at = round((1.0 - HELD_OUT) * n_rows)
    return slice(0, at), slice(at, n_rows)


def _names(spec: FeatureSpec) -> tuple[list[str], list[str]]:
    return [f.name for f in spec.categories()], [f.name for f in spec.numbers()]


def _frame(raw: Raw, spec: FeatureSpec) -> pd.DataFrame:
    return pd.DataFrame({name: raw[name] for name in spec.names})


def _coded(raw: Raw, others: Sequence[Raw], spec: FeatureSpec, *, most: int) -> tuple[Doubles, list[Doubles]]:
    """Categories as frequency ranks below `most`; rare, unseen and beyond are NaN."""
    tables = [np.empty((len(next(iter(part.values()))), len(spec.features))) for part in (raw, *others)]
    for i, feature in enumerate(spec.features):
        if feature.kind is FeatureKind.NUMBER:
            columns = [part[feature.name] for part in (raw, *others)]
        else:
            counts = pd.Series(raw[feature.name]).value_counts()
            kept = counts[counts >= MIN_COUNT].index[:most]
            rank = dict(zip(kept, range(len(kept)), strict=True))
            columns = [
                pd.Series(part[feature.name]).map(rank).to_numpy(dtype=float) for part in (raw, *others)
            ]
        for table, column in zip(tables, columns, strict=True):
            table[:, i] = column
    return tables[0], tables[1:]


def _fields(table: Doubles, others: list[Doubles], spec: FeatureSpec) -> tuple[Codes, list[Codes], int]:
    """Each field's values as codes of its own, 0 of them for what is missing; and how many there are of all."""
    tables = [table, *others]
    coded = [np.empty(each.shape, dtype=np.int64) for each in tables]
    n_values = 0
    for i, feature in enumerate(spec.features):
        columns = [each[:, i] for each in tables]
        if feature.kind is FeatureKind.NUMBER:
            edges = np.unique(np.nanquantile(table[:, i], np.linspace(0.0, 1.0, 17)[1:-1]))
            columns = [np.where(np.isnan(x), np.nan, np.searchsorted(edges, x)) for x in columns]
        found = [np.where(np.isnan(x), 0.0, x + 1.0).astype(np.int64) for x in columns]
        for codes, column in zip(coded, found, strict=True):
            codes[:, i] = column + n_values
        n_values += max(int(column.max(initial=0)) for column in found) + 1
    return coded[0], coded[1:], n_values


def _vw_lines(raw: Raw, spec: FeatureSpec) -> Any:
    categories, numbers = _names(spec)
    scales = {name: np.nanstd(raw[name]) or 1.0 for name in numbers}
    texts = [[f"{name}={text.translate(_VW_SPECIAL)}" for text in raw[name].tolist()] for name in categories]
    values = [
        [f"{name}:{x:.6g}" if x == x else f"{name}_missing" for x in (raw[name] / scales[name]).tolist()]
        for name in numbers
    ]
    some = [" ".join(cells) for cells in zip(*texts, strict=True)] if texts else [""] * len(values[0])
    rest = [" ".join(cells) for cells in zip(*values, strict=True)] if values else [""] * len(some)
    for words, figures in zip(some, rest, strict=True):
        yield f"|c {words} |n {figures}"


_VW_SPECIAL = str.maketrans(dict.fromkeys(": |\n\r\t", "_"))


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
