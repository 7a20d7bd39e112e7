"""A window that is too large to hold: what a model learns from is sampled, what it is judged by is not weighted.

The rows before the held-out ones are read as `log.keep_unclicked` and `log.keep_lost` say, each with its rate. The
held-out auctions are read whole, or a share of them that does not depend on their outcome (`data.keep_held_out`), so
that every check of the gate stays a mean over auctions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from bidml.log import read_sample
from bidml.log.files import refusing_damage
from bidml.log.join.stream import SAMPLING_RATE
from bidml.train.prepare import held_out_from
from training.config import RetrainConfig
from training.window import Window


def sampled_window(config: RetrainConfig, window: Window) -> tuple[pd.DataFrame, pd.Timestamp]:
    """The rows to learn from and the held-out ones, and when these begin: where the whole window would be split.

    Raises `DataError` for days that are missing or damaged.
    """
    source = config.train.log
    path, days = str(source.path), (window.days[0], window.days[-1])
    learnt = read_sample(path, days=days, keep_unclicked=source.keep_unclicked, keep_lost=source.keep_lost)
    inside = (learnt["timestamp"] >= window.start) & (learnt["timestamp"] < window.end)
    cut = held_out_from(learnt[inside], holdout=config.train.split.holdout)
    judged = read_sample(path, days=days, since=cut, keep=config.data.keep_held_out)
    judged[SAMPLING_RATE] = float("nan")  # alike: none stands for more than another
    return pd.concat([learnt[learnt["timestamp"] < cut], judged], ignore_index=True), cut


def n_rows_of(files: Sequence[Path]) -> int:
    """Rows of Parquet files, as their footers say."""
    total = 0
    for file in files:
        with refusing_damage(file):
            total += int(pq.read_metadata(file).num_rows)
    return total
