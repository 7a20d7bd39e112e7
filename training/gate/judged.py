"""A model as a bidder reads it, with what it says of the held-out auctions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.blueprint import Blueprint
from bidml.features import Doubles, RawColumns, raw_columns
from bidml.pricing import WinCurve
from bidml.score import Scorer
from bidml.score.reader import Artifact
from bidml.train.evaluate import Terms, bids_of, predict

LEAST_WIN_RATE: Final = 0.1  # bias against variance: at 1/30 two thirds of the clicks count for nothing


class Judged:
    """A scorer with what it says of the test auctions, shape (n,) each."""

    def __init__(self, artifact: Artifact, test: pd.DataFrame, like: Judged | None = None) -> None:
        self.scorer = Scorer(artifact)
        self.blueprint: Blueprint = artifact.blueprint
        same = like is not None and like.blueprint.spec == self.blueprint.spec
        self.columns: RawColumns = (
            like.columns if like is not None and same else raw_columns(test, self.blueprint.spec)
        )
        self._codes: dict[str, tuple[Any, Any]] = like._codes if like is not None and same else {}
        found = predict(self.scorer, self.columns, blueprint=self.blueprint)
        self.pctr: Doubles | None = found.pctr
        self.pcvr: Doubles | None = found.pcvr
        self.curve: WinCurve | None = found.curve

    def codes(self, name: str) -> tuple[npt.NDArray[np.int64], Any]:
        """A category column as (codes, values): row i has values[codes[i]]."""
        if name not in self._codes:
            self._codes[name] = pd.factorize(self.columns[name])
        return self._codes[name]

    def stands_for(self, test: pd.DataFrame) -> Doubles:
        """For how many auctions of the traffic each impression stands, (n,): one over its chance to be won.

        CTR models are right for the auctions bid in, not for those won (`ClickModel.fit_traffic_level`). Ones without a
        win curve.
        """
        if self.curve is None or "bid_cpm" not in test:
            return np.ones(len(test))
        chance = self.curve.win_rate(test["bid_cpm"].to_numpy(dtype=np.float64))
        return np.asarray(1.0 / np.maximum(chance, LEAST_WIN_RATE))

    def bids(self, terms: Terms) -> Doubles:
        """What it bids on these terms without pacing, (n,), CPM; 0 = no bid."""
        return bids_of(self.scorer, self.columns, terms)
