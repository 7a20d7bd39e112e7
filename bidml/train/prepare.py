"""From files to checked, ordered, split tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.fit.crew import ALONE, Crew, sampled
from bidml.log import Need, QuarantineReport, infer_spec, read_log, read_sample, sample_weights, validate
from bidml.log.files import Source
from bidml.log.share import Share
from bidml.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Extent:
    """How large the data is on all ranks together: rows on either side, first and last time (None without times)."""

    n_train: int
    n_test: int
    times: tuple[str, str] | None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """`train` and `test` are auction logs in order of time (then of `auction_id`), in the schema's types; in a crew,
    this rank's share of them, while `digest` and `extent` are of all."""

    train: pd.DataFrame
    test: pd.DataFrame
    spec: FeatureSpec
    currency: str
    quarantine: QuarantineReport
    digest: str
    extent: Extent


def prepare(config: TrainConfig) -> TrainingData:
    """Reads, validates, orders and splits the log of `config`; raises the `DataError`s of those steps."""
    source = config.log
    log, quarantine = check(read(source.path, config), config)
    test = None if source.test_path is None else check(read(source.test_path, config), config)[0]
    return training_data(log, quarantine, config, test=test)


def read(path: Source, config: TrainConfig, *, share: Share | None = None) -> pd.DataFrame:
    """The files at `path` in the form that `config.log` declares, or a share of their auctions, not yet validated; see
    `bidml.log.read_log`."""
    source = config.log
    if source.is_sampled and isinstance(path, str):
        return read_sample(path, keep_unclicked=source.keep_unclicked, keep_lost=source.keep_lost)
    return read_log(
        path,
        format=source.format,
        spec=config.spec,
        columns=source.columns,
        currency=source.currency,
        auction_type=source.auction_type,
        price_unit=source.price_unit,
        time_unit=source.time_unit,
        numbers=source.numbers,
        delimiter=source.delimiter,
        share=share,
    )


def check(
    log: pd.DataFrame, config: TrainConfig, *, needs: Collection[Need] | None = None
) -> tuple[pd.DataFrame, QuarantineReport]:
    """The good rows in order of time, then of `auction_id`, and the others; raises `DataError` for a bad log.

    `needs`: of the job; default: those of the models that `config` trains.
    """
    source = config.log
    needs = {*(config.needs if needs is None else needs)} | ({Need.TIME} if "timestamp" in log else set())
    checked = validate(
        log, needs=needs, max_quarantined=source.max_quarantined, check_units=source.check_units
    )
    order = [name for name in ("timestamp", "auction_id") if name in checked.log]
    rows = checked.log.sort_values(order, ignore_index=True, kind="stable") if order else checked.log
    return rows, checked.quarantine


def training_data(
    log: pd.DataFrame,
    quarantine: QuarantineReport,
    config: TrainConfig,
    *,
    test: pd.DataFrame | None = None,
    held_out: pd.Timestamp | None = None,
    crew: Crew = ALONE,
) -> TrainingData:
    """A checked log with its spec, split where no `test` is given; raises `DataError` when it is too short.

    `held_out`: when the test side begins; without it `split` finds the time.
    With a `crew`, `log` is this rank's share; also raises `DataError` where shares have other columns than others.
    """
    currency = str(log["currency"].iloc[0]) if "currency" in log else config.currency
    _check_alike(log, currency, config, crew)
    spec = config.spec or infer_spec(log)
    train = log
    if test is None:
        if held_out is None:
            train, test = split(log, holdout=config.split.holdout, crew=crew)
        else:
            train, test = _sides(log, (log["timestamp"] >= held_out).to_numpy(dtype=bool))
    digest, extent = _of_all_ranks(digest_of(log), train, test, crew)
    return TrainingData(train, test, spec, currency, quarantine, digest, extent)


def split(log: pd.DataFrame, *, holdout: float, crew: Crew = ALONE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The last `holdout` share in time is the test side; without times, rows are chosen by a hash of their id.

    Equal times stay on one side; in a crew, the side that a sample of all ranks' times tells. Raises `DataError` when a
    side would be empty.
    """
    if "timestamp" in log and (crew.size > 1 or log["timestamp"].nunique() > 1):
        times = log["timestamp"].astype("int64").to_numpy()
        cut = np.quantile(sampled(crew, times), 1.0 - holdout, method="higher")
        is_test = times >= cut if (times < cut).any() else times > cut
    else:
        ids = log["auction_id"] if "auction_id" in log else pd.Series(np.arange(len(log)), index=log.index)
        is_test = pd.util.hash_pandas_object(ids, index=False).to_numpy() < np.uint64(holdout * 2.0**64)
    return _sides(log, is_test)


def held_out_from(log: pd.DataFrame, *, holdout: float) -> pd.Timestamp:
    """When the last `holdout` share of the auctions begins that a sample with times stands for."""
    if not len(log):
        raise DataError("a window has rows", value="none in the sample", remedy="check the window")
    weights = sample_weights(log)
    order = np.argsort(log["timestamp"].to_numpy(), kind="stable")
    before = np.cumsum(np.ones(len(log)) if weights is None else weights[order])
    first = int(np.searchsorted(before, (1.0 - holdout) * before[-1], side="right"))
    return pd.Timestamp(log["timestamp"].iloc[order[min(first, len(log) - 1)]])


def _sides(log: pd.DataFrame, is_test: npt.NDArray[np.bool_]) -> tuple[pd.DataFrame, pd.DataFrame]:
    if is_test.all() or not is_test.any():
        raise DataError(
            "a log is long enough to hold rows out", value=f"{len(log):,} rows", remedy="take a longer window"
        )
    return log[~is_test].reset_index(drop=True), log[is_test].reset_index(drop=True)


def _check_alike(log: pd.DataFrame, currency: str, config: TrainConfig, crew: Crew) -> None:
    if crew.size == 1:
        return
    if config.spec is None:
        raise ConfigError(
            "features of a log that ranks share are declared",
            value="no [[features]]",
            remedy="declare every feature",
        )
    here = {name: str(log[name].dtype) for name in sorted(log.columns)} | {"": currency}
    found = [json.loads(told) for told in crew.told(json.dumps(here).encode())]
    differing = {
        name or "currency": f"{here.get(name)} here, {other.get(name)} on rank {rank}"
        for rank, other in enumerate(found)
        for name in sorted({*here, *other})
        if here.get(name) != other.get(name)
    }
    if differing:
        raise DataError(
            "all ranks read a log of the same columns, types and currency",
            value=differing,
            remedy="mount the same log everywhere; map or convert what differs",
        )


def _of_all_ranks(digest: str, train: pd.DataFrame, test: pd.DataFrame, crew: Crew) -> tuple[str, Extent]:
    """The digest of the digests of all shares (alone: the log's own), and the extent of all."""
    times = None
    if "timestamp" in train:
        times = [train["timestamp"].min().isoformat(), test["timestamp"].max().isoformat()]
    here = [digest, len(train), len(test), times]
    found = [json.loads(told) for told in crew.told(json.dumps(here).encode())]
    digests, n_train, n_test, times_of = zip(*found, strict=True)
    if crew.size > 1:
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    spans = [span for span in times_of if span is not None]
    extent = (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None
    return digest, Extent(sum(n_train), sum(n_test), extent)


def digest_of(log: pd.DataFrame) -> str:
    """SHA-256 of a log's cells, whatever the order of its columns."""
    digest = hashlib.sha256()
    for name in sorted(log.columns):
        digest.update(name.encode())
        digest.update(pd.util.hash_pandas_object(log[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()
