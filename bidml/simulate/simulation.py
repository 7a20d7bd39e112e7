"""A simulated log with its truth, and its rows as bid requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureSpec
from bidml.simulate.columns import LINE_ITEM_FEATURES
from bidml.simulate.requests import requests_of
from bidml.simulate.truth import Truth


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """`log`: an auction log in time order, with features and `true_*` columns; `truth`: row for row, what holds."""

    log: pd.DataFrame
    spec: FeatureSpec
    truth: Truth

    def __len__(self) -> int:
        return len(self.log)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Simulation:
        """Some rows of log and truth: a slice, a mask or indices; the log is numbered from 0 again."""
        return Simulation(self.log.iloc[rows].reset_index(drop=True), self.spec, self.truth[rows])

    def requests(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> list[dict[str, Any]]:
        """Rows by position as OpenRTB 2.x bid requests; extraction by `spec` gives back their feature values."""
        return requests_of(self.log.iloc[rows if isinstance(rows, slice) else np.asarray(rows)])

    def line_item_fields(self, row: int) -> dict[str, str]:
        """The fields of the row's line item: what `Scorer.line_item` takes besides the money."""
        cells = self.log.iloc[row]
        return {field: str(cells[name]) for name, field in LINE_ITEM_FEATURES.items()}
