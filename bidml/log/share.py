"""One rank's share of a log: the auctions whose id has its hash. All copies of an auction are in one share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.errors import DataError


@dataclass(slots=True)
class Share:
    """The `rank`-th of `size` shares, whatever the order of the rows and the files they lie in.

    `n_seen` counts the rows of all shares that were looked at.
    """

    rank: int
    size: int
    n_seen: int = field(default=0)

    def of(self, table: pd.DataFrame, name: str = "auction_id") -> pd.DataFrame:
        """The rows of `table` whose `name` belongs to this share; raises `DataError` where there is no such column."""
        if name not in table:
            raise DataError(
                "a log that ranks share names its auctions",
                value=sorted(table.columns),
                remedy="map auction_id in log.columns",
            )
        self.n_seen += len(table)
        return table[self._mine(table[name])]

    def _mine(self, ids: pd.Series[Any]) -> npt.NDArray[np.bool_]:
        texts = ids.astype(object).where(ids.notna(), None).map(str).to_numpy(dtype=object)
        hashed = pd.util.hash_array(texts, categorize=False)
        mine: npt.NDArray[np.bool_] = hashed % np.uint64(self.size) == np.uint64(self.rank)
        return mine
