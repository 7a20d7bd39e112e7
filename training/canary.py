"""`python -m training.canary --config FILE --log PATH`: continue a canary, roll it back, or promote it.

The log holds both arms' auctions since the canary began (docs/auction_log.md, with a column `arm`: "control",
"challenger"), in time order. All of it is read again each time: the tests may be read as often as one likes
(bidml/monitor/sequential.py), so the job needs no state, and a killed one is run again.

Three tests share the error `1 − confidence`, by Bonferroni:

- calibration of the challenger's clicks against those to be expected by now (bidml/monitor/calibration.py): beyond the
  tolerance → roll back. Where the control is off likewise, the market moved: it is said, and rolled back all the same,
  for the champion is what bidders had;
- realised surplus per auction, challenger − control, a confidence sequence for the difference of the arms: certainly
  below 0 → roll back; certainly above −`margin` of the control's → promote, after `min_auctions`;
- no decision after `max_auctions` → roll back: what cannot be told from the champion need not replace it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import pandas as pd
import typer
from pydantic import BaseModel, ConfigDict, Field

from bidml.errors import ConfigError, DataError, RefusedError
from bidml.features import Doubles
from bidml.metrics import Interval
from bidml.monitor.calibration import CalibrationGuard, Reading
from bidml.monitor.sequential import assigned_difference
from bidml.score.canary import CHALLENGER, CONTROL
from bidml.score.publication import Publication, read_publication, read_release
from training.command import key_in, run
from training.publication import publish_bytes

CONTINUE: Final = "continue"
ROLL_BACK: Final = "roll back"
PROMOTE: Final = "promote"

_N_TESTS: Final = 2
_COLUMNS: Final = ("arm", "timestamp", "won", "price_cpm", "clicked", "pctr", "value_per_click")


class CanaryConfig(BaseModel):
    """`share`: the challenger's part of the traffic, as its bidders have it; the rest: see the module.

    `horizon_hours`: after which every click has come. `delay_hours`: the mean of an exponential delay; measure it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0.0, lt=1.0)
    confidence: float = Field(0.99, gt=0.5, lt=1.0)
    margin: float = Field(0.02, ge=0.0)
    calibration_tolerance: float = Field(0.15, ge=0.0)
    min_auctions: int = Field(20_000, ge=1000)
    max_auctions: int = Field(5_000_000, ge=1000)
    delay_hours: float = Field(0.1, gt=0.0)
    horizon_hours: float = Field(24.0, gt=0.0)


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """What to do and why; `difference` is in CPM per auction, challenger − control."""

    action: str
    reason: str
    n_auctions: int
    difference: Interval
    control_surplus_cpm: float
    challenger: Reading
    control: Reading

    def to_json(self) -> dict[str, Any]:
        readings = {"challenger": self.challenger.to_json(), "control": self.control.to_json()}
        ends = {name: x if np.isfinite(x) else None for name, x in asdict(self.difference).items()}
        return {
            "action": self.action,
            "reason": self.reason,
            "auctions": self.n_auctions,
            "surplus_difference_cpm": ends,
            "control_surplus_cpm": self.control_surplus_cpm,
            "calibration": readings,
        }


def judge_canary(log: pd.DataFrame, config: CanaryConfig, *, now: float | None = None) -> CanaryVerdict:
    """The verdict on both arms' auctions so far; `now` in seconds, by default the log's last time.

    Surplus is realised: 1000 · value_per_click where clicked, − the price, where won. Raises `DataError` for a log
    without the columns, or whose arms are not of the share that is configured.
    """
    missing = [name for name in _COLUMNS if name not in log]
    if missing or not len(log) or not log["arm"].isin([CONTROL, CHALLENGER]).all():
        raise DataError(
            f"a canary's log has auctions with {list(_COLUMNS)}; arm: control or challenger",
            value=missing or f"{len(log)} rows",
            remedy="log Canary.arm_of with each bid",
        )
    treated = (log["arm"] == CHALLENGER).to_numpy()
    _demand_share(treated, config.share)
    won = log["won"].to_numpy(dtype=bool)
    clicked = log["clicked"].to_numpy(dtype=bool) & won
    value = 1000.0 * log["value_per_click"].to_numpy(dtype=np.float64) * clicked
    surplus = np.where(won, value - log["price_cpm"].to_numpy(dtype=np.float64), 0.0)
    error = (1.0 - config.confidence) / _N_TESTS
    difference = assigned_difference(
        surplus,
        treated,
        share=config.share,
        confidence=1.0 - error,
        tightest_at=float(np.sqrt(config.min_auctions * config.max_auctions)),
    )
    at = _seconds(log["timestamp"])
    last = float(at.max()) if now is None else now
    readings = {
        arm: _reading(log[rows & won], at[rows & won], clicked[rows & won], config, 1.0 - error, last)
        for arm, rows in ((CHALLENGER, treated), (CONTROL, ~treated))
    }
    control = float(surplus[~treated].mean()) if (~treated).any() else float("nan")
    action, reason = _decided(len(log), difference, control, readings, config)
    return CanaryVerdict(
        action, reason, len(log), difference, control, readings[CHALLENGER], readings[CONTROL]
    )


def _decided(
    n: int, difference: Interval, control: float, readings: dict[str, Reading], config: CanaryConfig
) -> tuple[str, str]:
    alarm = readings[CHALLENGER].alarm
    if alarm is not None:
        also = "; the control's, too: the market moved" if readings[CONTROL].alarm == alarm else ""
        return ROLL_BACK, f"the challenger certainly predicts too {_MUCH[alarm]} clicks{also}"
    if n < config.min_auctions:
        return CONTINUE, f"fewer than {config.min_auctions:,} auctions"
    if difference.high < 0.0:
        return ROLL_BACK, "the challenger certainly earns less than the control"
    if difference.low > -config.margin * abs(control):
        return PROMOTE, f"the challenger certainly earns no less than the control − {config.margin:.0%}"
    if n >= config.max_auctions:
        return ROLL_BACK, f"{n:,} auctions told no difference: the champion stays"
    return CONTINUE, "nothing is certain yet"


_MUCH: Final = {"over": "many", "under": "few"}


def _reading(
    impressions: pd.DataFrame, at: Doubles, clicked: Any, config: CanaryConfig, confidence: float, now: float
) -> Reading:
    """Clicks without a time of their own are counted as if they had come at once; their expectation ends there."""
    guard = CalibrationGuard(
        _exponential(3600.0 * config.delay_hours),
        tolerance=config.calibration_tolerance,
        confidence=confidence,
        horizon=3600.0 * config.horizon_hours,
    )
    pctr = impressions["pctr"].to_numpy(dtype=np.float64)
    guard.impressions(at, pctr)
    when = at[clicked]
    if "click_timestamp" in impressions:
        when = np.maximum(_seconds(impressions["click_timestamp"])[clicked], when)
    else:
        when = np.full(int(clicked.sum()), now)
    guard.clicks(at[clicked], pctr[clicked], when)
    return guard.read(now)


def _exponential(mean: float) -> Callable[[Doubles], Doubles]:
    return lambda age: -np.expm1(-age / mean)


def _seconds(times: pd.Series[Any]) -> Doubles:
    found = pd.to_datetime(times, utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return np.asarray(found.astype(np.int64) / 1e6)


def _demand_share(treated: Any, share: float) -> None:
    """A sample ratio mismatch is a broken experiment: auctions are lost in one arm, or the share is another."""
    n = len(treated)
    off = abs(float(treated.sum()) - share * n) / np.sqrt(n * share * (1.0 - share))
    if off > 6.0:
        raise DataError(
            f"the challenger has {share:.2%} of the auctions",
            value=f"{treated.mean():.2%} of {n:,}, {off:.0f} standard errors off",
            remedy="compare nothing: find what is lost in one arm, or correct canary.share",
        )


def act(
    verdict: CanaryVerdict, champion: Path, challenger: Path, *, key: bytes | None = None
) -> Publication | None:
    """Carries a verdict out; done again it changes nothing. The publication that was written, None for `continue`."""
    if verdict.action == CONTINUE:
        return None
    source, target = (champion, challenger) if verdict.action == ROLL_BACK else (challenger, champion)
    found = [read_publication(folder, key=key) for folder in (source, target)]
    if found[0] is None or found[1] is None:
        raise ConfigError(
            "a canary has two publications", value=(str(champion), str(challenger)), remedy="publish to both"
        )
    release, current = found[0].current, found[1].current
    if release.sha256 == current.sha256:
        return found[1]
    return publish_bytes(
        target,
        read_release(source, release),
        expected_generation=current.generation,
        data_end=release.data_end,
        note=f"canary: {verdict.reason}"[:200],
        key=key,
    )


def main(
    log: Annotated[Path, typer.Argument(help="Parquet: both arms since the canary began, with `arm`.")],
    champion: Annotated[Path, typer.Option(help="The folder of the control arm.")],
    challenger: Annotated[Path, typer.Option(help="The folder of the challenger's arm.")],
    share: Annotated[float, typer.Option(help="The challenger's share of the traffic.")],
    settings: Annotated[str, typer.Option(help="More of CanaryConfig, as JSON.")] = "{}",
    key_file: Annotated[Path | None, typer.Option(help="Sign manifests with this key.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say, and change nothing.")] = False,
) -> None:
    """Continue a canary, roll it back, or promote it. Exit code 4 when it is rolled back."""
    from bidml.train.config import config_error

    try:
        config = CanaryConfig(share=share, **json.loads(settings))
    except (ValueError, TypeError) as error:
        raise (
            config_error(error, remedy="see docs/retraining.md")  # type: ignore[arg-type]
            if hasattr(error, "errors")
            else ConfigError("--settings is a JSON object", value=settings, remedy=str(error))
        ) from None
    try:
        rows = pd.read_parquet(log)
    except (OSError, ValueError) as error:
        raise DataError("the log can be read", value=str(error), remedy="correct the path") from None
    verdict = judge_canary(rows, config)
    if not dry_run:
        act(verdict, champion, challenger, key=key_in(key_file))
    typer.echo(json.dumps(verdict.to_json(), indent=1))
    if verdict.action == ROLL_BACK:
        raise RefusedError(
            "a canary earns its place", value=verdict.reason, remedy="both arms bid with the champion now"
        )


if __name__ == "__main__":
    run(main, "canary")
