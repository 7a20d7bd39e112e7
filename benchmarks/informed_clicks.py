"""What the clicks of a simulated log can teach at all: a CTR model that is told the simulator's formula.

Logistic regression on the terms of `bidml.simulate.effects.ClickEffects`, each with a normal prior of the spread it was
drawn with: the posterior's mode. What a learner that is told nothing can hope for is below this. What is simplified:
tastes of apps and campaigns are an effect of each pair, not of rank three; hours are a wave of each app, not of its
category; what prices tell of an app's quality is not used.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

Doubles = npt.NDArray[np.float64]

# columns that together are one category → the spread of its effects
SPREADS: Final = {
    ("publisher_id",): 0.35,
    ("app_bundle",): 0.53,
    ("tag_id",): 0.2,
    ("country",): 0.27,
    ("device_model",): 0.18,
    ("banner_size",): 0.5,
    ("connection_type",): 0.12,
    ("creative",): 0.3,
    ("app_bundle", "campaign_id"): 0.35,
}
AGE_SPREAD: Final = 0.3
WAVE_SPREAD: Final = 0.18
_MOST_STEPS: Final = 150


class InformedClicks:
    """`fit(impressions, clicked)`, then `predict_log_odds(auctions)` or `predict_pctr(auctions)`, (n,)."""

    def fit(self, impressions: pd.DataFrame, clicked: npt.ArrayLike) -> InformedClicks:
        y = np.asarray(clicked, dtype=np.float64)
        self._keys = {columns: pd.Index(_key(impressions, columns).unique()) for columns in SPREADS}
        x = self._design(impressions)
        free = np.ones(x.shape[1])
        free[0] = 0.0  # the intercept

        def loss(weights: Doubles) -> tuple[float, Doubles]:
            log_odds = x @ weights
            value = np.logaddexp(0.0, log_odds).sum() - y @ log_odds + 0.5 * (free * weights**2).sum()
            return float(value), x.T @ (expit(log_odds) - y) + free * weights

        start = np.zeros(x.shape[1])
        start[0] = np.log(y.mean()) - np.log1p(-y.mean())
        self._weights = minimize(
            loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS, "maxcor": 20}
        ).x
        return self

    def predict_log_odds(self, auctions: pd.DataFrame) -> Doubles:
        found: Doubles = self._design(auctions) @ self._weights
        return found

    def predict_pctr(self, auctions: pd.DataFrame) -> Doubles:
        found: Doubles = expit(self.predict_log_odds(auctions))
        return found

    def _design(self, log: pd.DataFrame) -> Any:
        """Columns in units of their spreads, the intercept first; an unseen category has none."""
        depth = np.log(log["session_depth"].fillna(5.0).to_numpy(dtype=np.float64))
        seen = log["viewability"].fillna(0.6).to_numpy(dtype=np.float64) - 0.6
        parts: list[Any] = [np.column_stack([np.ones(len(log)), depth, seen])]
        for columns, spread in SPREADS.items():
            parts.append(spread * _one_hot(_key(log, columns), self._keys[columns]))
        campaigns, apps = (
            _one_hot(_key(log, (name,)), pd.Index(sorted({key.split("\x1f")[0] for key in keys})))
            for name, keys in (
                ("campaign_id", [k.split("\x1f")[1] for k in self._keys["app_bundle", "campaign_id"]]),
                ("app_bundle", self._keys["app_bundle",]),
            )
        )
        age = np.nan_to_num((1991.0 - log["birth_year"].to_numpy(dtype=np.float64)) / 15.0)
        turn = log["hour_of_day"].to_numpy(dtype=np.float64) / 24.0 * 2.0 * np.pi
        parts.append(AGE_SPREAD * sparse.diags(age) @ campaigns)
        parts += [WAVE_SPREAD * sparse.diags(wave(turn)) @ apps for wave in (np.cos, np.sin)]
        return sparse.hstack([sparse.csr_matrix(part) for part in parts], format="csr")


def _key(log: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series[str]:
    key = log[columns[0]].astype("str").fillna("")
    for name in columns[1:]:
        key = key + "\x1f" + log[name].astype("str").fillna("")
    return key


def _one_hot(key: pd.Series[str], keys: pd.Index[str]) -> Any:
    """(n, len(keys)), a row of zeros where the key is not among them."""
    code = keys.get_indexer(key)
    rows = np.flatnonzero(code >= 0)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, code[rows])), shape=(len(key), len(keys)))
