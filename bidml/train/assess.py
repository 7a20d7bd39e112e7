"""An artifact judged on a log: the metrics of a training run, or of a log that comes later.

`evaluate` is the job behind `bidml evaluate`: yesterday's model on today's auctions, with the same report.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bidml.certify import DEFAULT_EVALUATORS, certify
from bidml.contract import AuctionType
from bidml.errors import ConfigError
from bidml.features import RawColumns, raw_columns
from bidml.fit.maturity import Maturity
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.train.config import CvrConfig, ModelPart, TrainConfig
from bidml.train.evaluate import (
    Estimates,
    KnownPrices,
    Market,
    Terms,
    bids_of,
    evaluate_ctr,
    evaluate_cvr,
    evaluate_money,
    evaluate_win,
    predict,
    terms_of,
)
from bidml.train.importance import importance_in_money
from bidml.train.prepare import check, read
from bidml.train.report_files import REPORT, Stages, report_data, write_report_files

MarketOf = Callable[[pd.DataFrame], Market]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an evaluation found, and where its files are."""

    folder: Path
    metrics: dict[str, Any]
    n_rows: int
    currency: str

    @property
    def report(self) -> Path:
        return self.folder / REPORT


def evaluate(
    artifact: str | Path,
    config: TrainConfig,
    out: str | Path,
    *,
    stages: Stages = lambda _: nullcontext(),
    market_of: MarketOf | None = None,
) -> Evaluation:
    """Judges `artifact` on every auction of the log of `config`; writes the files of `write_report_files` to `out`.

    The artifact's own features are read, whatever `config` declares. Raises `ArtifactError`, `ConfigError`,
    `DataError`, `SpecError`; then `out` holds nothing new.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError("the run directory is a folder", value=str(out), remedy="choose another --out")
    model = Path(artifact).read_bytes()
    with stages("certify"):
        certificate = certify(model, evaluators=DEFAULT_EVALUATORS)
        parsed = parse_artifact(model)
        scorer = Scorer(parsed)
    blueprint = parsed.blueprint
    parts = {ModelPart.CTR: blueprint.ctr, ModelPart.WIN: blueprint.win}
    spec = blueprint.spec
    cvr = config.cvr or CvrConfig() if blueprint.cvr is not None else None  # type: ignore[call-arg]
    config = config.model_copy(
        update={
            "models": tuple(part for part, head in parts.items() if head is not None),
            "features": tuple(feature.to_json() for feature in spec.features),
            "timestamp_ms_source": spec.timestamp_ms_source,
        }
    )
    with stages("read and check the log"):
        log, quarantine = check(read(config.log.path, config), config)
    _same_currency(blueprint.currency, log)
    with stages("evaluate"):
        columns = raw_columns(log, spec)
        maturity = None if cvr is None else Maturity.of(log, cvr.window)
        metrics, predictions = evaluate_models(scorer, config, log, columns, market_of, maturity=maturity)
    with stages("write the report"):
        out.mkdir(parents=True, exist_ok=True)
        judged = replace(blueprint, metrics=metrics)
        report = report_data(out.name, judged, certificate, quarantine, log, predictions)
        write_report_files(out, config, judged, report, quarantine, [])
    return Evaluation(out, metrics, len(log), blueprint.currency)


def _same_currency(currency: str, log: pd.DataFrame) -> None:
    found = str(log["currency"].iloc[0]) if "currency" in log else currency
    if found != currency:
        raise ConfigError(
            "artifact and log speak one currency",
            value=f"{currency} and {found}",
            remedy="convert the log (bidml join --convert-to), or take the artifact that was trained on it",
        )


def evaluate_models(
    scorer: Scorer,
    config: TrainConfig,
    test: pd.DataFrame,
    columns: RawColumns,
    market_of: MarketOf | None,
    *,
    maturity: Maturity | None = None,
) -> tuple[dict[str, Any], Estimates]:
    """Metrics of every part on held-out auctions, and what they were computed from; `columns` are those of `test`.

    `maturity`: how conversions arrive, from a log as long as there is; see `evaluate_cvr`.
    """
    found = estimates_of(scorer, config, test, columns)
    known = market_of or _known_prices_of(test, config)
    market = known(test) if known is not None else None
    metrics: dict[str, Any] = {}
    if found.pctr is not None:
        metrics["ctr"] = evaluate_ctr(found.pctr, test)
    if found.pcvr is not None and "converted" in test:
        scores = evaluate_cvr(found.pcvr, test, maturity)
        metrics |= {} if scores is None else {"cvr": scores}
    if found.curve is not None:
        metrics["win"] = evaluate_win(found.curve, test, market=market)
    terms = _terms(test, config)
    if found.pctr is None or found.bid_cpm is None or terms is None:
        return metrics, found
    if market is not None:
        metrics["money"] = evaluate_money(found.pctr, found.bid_cpm, test, terms, market, pcvr=found.pcvr)
        metrics["market"] = market.kind
    metrics["importance"] = importance_in_money(
        scorer, columns, test, terms, known, rng=np.random.default_rng(config.random_state)
    )
    return metrics, found


def estimates_of(scorer: Scorer, config: TrainConfig, test: pd.DataFrame, columns: RawColumns) -> Estimates:
    """What the artifact says of `test`, with values and bids where it can bid and the value of a click is known."""
    found = predict(scorer, columns)
    terms = _terms(test, config)
    if found.pctr is None or found.curve is None or terms is None:
        return Estimates(found.pctr, found.curve, found.pcvr)
    value = terms.value_cpm(found.pctr, found.pcvr)
    return Estimates(found.pctr, found.curve, found.pcvr, value, bids_of(scorer, columns, terms))


def _terms(test: pd.DataFrame, config: TrainConfig) -> Terms | None:
    return terms_of(
        test,
        value_per_click=config.pricing.value_per_click,
        value_per_conversion=config.pricing.value_per_conversion,
        cap_cpm=config.pricing.cap_cpm,
        auction_type=config.pricing.default_auction_type,
    )


def _known_prices_of(log: pd.DataFrame, config: TrainConfig) -> MarketOf | None:
    """How rows of `log` become a market of known prices; None where it does not know them."""
    if "true_market_price_cpm" not in log:
        return None

    def market(rows: pd.DataFrame) -> KnownPrices:
        n = len(rows)
        floor = rows["floor_cpm"].fillna(0.0) if "floor_cpm" in rows else np.zeros(n)
        at = rows["auction_type"] if "auction_type" in rows else int(config.pricing.default_auction_type)
        return KnownPrices(
            rows["true_market_price_cpm"].to_numpy(dtype=np.float64),
            np.asarray(floor, dtype=np.float64),
            np.broadcast_to(np.asarray(at == AuctionType.SECOND_PRICE), (n,)),
        )

    return market
