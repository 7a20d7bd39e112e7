"""One door to every log format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

import pandas as pd

from bidml.contract import FeatureKind, FeatureSpec
from bidml.errors import ConfigError
from bidml.log.conform import conform
from bidml.log.files import Source, files_of
from bidml.log.ipinyou import read_ipinyou
from bidml.log.mapping import PriceUnit, TableMapping, TimeUnit, mapped, price_unit_of, time_unit_of
from bidml.log.openrtb_events import read_openrtb_events
from bidml.log.quarantine import ReadingReport
from bidml.log.schema import check_feature_names
from bidml.log.share import Share
from bidml.log.tables import read_csv, read_parquet


class LogFormat(StrEnum):
    IPINYOU = "ipinyou"
    PARQUET = "parquet"
    CSV = "csv"
    OPENRTB = "openrtb"


def read_log(
    path: Source,
    *,
    format: LogFormat | str,
    spec: FeatureSpec | None = None,
    columns: Mapping[str, str] | None = None,
    currency: str | None = None,
    auction_type: int | None = None,
    price_unit: PriceUnit | str | None = None,
    time_unit: TimeUnit | str = TimeUnit.MILLISECONDS,
    numbers: Collection[str] = (),
    delimiter: str = ",",
    share: Share | None = None,
) -> pd.DataFrame:
    """The auction log in `path` (a file, a folder, a list of them), in the schema's types, not yet validated.

    `columns` maps names of the log and of features to the file's own (Parquet, CSV). `currency` and
    `auction_type` fill what the file leaves out. `price_unit` is that of the file (default: CPM; iPinYou:
    hundredths of it). `time_unit` is that of numeric times. Text columns stay text but for the number
    features of `spec` and the names in `numbers`. With `spec`, OpenRTB events get its features. Malformed
    lines are left out and counted: `reading_report(log)`. With `share`, only its auctions; of Parquet files no more
    than these are held.

    Raises `DataError` for a file that is missing, damaged or of another format, and for a mapping that does
    not fit; `SpecError` for a spec with an outcome among its features; `ConfigError` for an option this
    format does not have.
    """
    kind = _format(format)
    if spec is not None:
        check_feature_names(spec.names)
    files = files_of(path)
    if kind in (LogFormat.IPINYOU, LogFormat.OPENRTB):
        _refuse(kind, columns=columns or None, numbers=numbers or None)
    if kind is LogFormat.IPINYOU:
        _refuse(kind, currency=currency, auction_type=auction_type)
        log, report = read_ipinyou(files, price_unit=price_unit_of(price_unit or PriceUnit.CENTI_CPM))
        return report.attach(_shared(conform(log), share))
    if kind is LogFormat.OPENRTB:
        _refuse(kind, price_unit=price_unit)
        log, report = read_openrtb_events(files, spec=spec, currency=currency, auction_type=auction_type)
        return report.attach(_shared(conform(log), share))
    name = (columns or {}).get("auction_id", "auction_id")
    if kind is LogFormat.PARQUET:
        keep = None if share is None else lambda rows: share.of(rows, name)
        table, report = read_parquet(files, keep=keep), ReadingReport()
    else:
        table, report = read_csv(files, delimiter=delimiter)
        table = table if share is None else share.of(table, name)
    declared = (
        [feature.name for feature in spec.features if feature.kind is FeatureKind.NUMBER] if spec else []
    )
    mapping = TableMapping(
        columns=dict(columns or {}),
        currency=currency,
        auction_type=auction_type,
        price_unit=price_unit_of(price_unit or PriceUnit.CPM),
        time_unit=time_unit_of(time_unit),
        numbers={*numbers, *declared},
    )
    return mapped(table, mapping, report)


def _shared(log: pd.DataFrame, share: Share | None) -> pd.DataFrame:
    return log if share is None else share.of(log).reset_index(drop=True)


def _format(name: LogFormat | str) -> LogFormat:
    try:
        return LogFormat(name)
    except ValueError:
        raise ConfigError(
            "a log format is known", value=name, remedy=f"one of {[known.value for known in LogFormat]}"
        ) from None


def _refuse(kind: LogFormat, **options: Any) -> None:
    given = {name: option for name, option in options.items() if option is not None}
    if given:
        raise ConfigError(
            f"the format {kind} declares these itself", value=given, remedy="remove the options"
        )
