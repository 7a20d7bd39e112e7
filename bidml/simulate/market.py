"""What a simulated market is like: the choices a caller makes. Everything else is drawn from `rng`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from os import PathLike
from typing import Final

from bidml.contract import AuctionType
from bidml.errors import ConfigError

CURRENCY: Final = "USD"


class Feedback(StrEnum):
    """What an exchange tells about the market price (SCIENCE.md 2.1).

    CLOSED: won or lost. WINS: the minimum bid to win, on wins. ALWAYS: also on losses on price. CLEARING: the
    second price, which is the market price or the floor.
    """

    CLOSED = "closed"
    WINS = "min_bid_to_win_on_wins"
    ALWAYS = "min_bid_to_win_always"
    CLEARING = "clearing_price"


class Shape(StrEnum):
    """The distribution of the log market price around its location.

    All but the first are misspecified for a log-logistic model. EMPIRICAL is the standardised price histograms of
    nine iPinYou campaigns, one for each app, with their spikes; it needs `Market.histograms`.
    """

    LOG_LOGISTIC = "log_logistic"
    LOG_NORMAL = "log_normal"
    GUMBEL = "gumbel"
    MIXTURE = "mixture"
    EMPIRICAL = "empirical"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange: its share of traffic, its rules, and what it says afterwards.

    `price_shift` is added to ln price and `slope_shift` to ln k; `non_price_losses` is the share of bids that no
    price would have won (late, blocked, lost to a deal); those losses carry their reason, and losses on price do
    when `reports_loss_reasons`.
    """

    name: str
    share: float
    auction_type: AuctionType = AuctionType.FIRST_PRICE
    feedback: Feedback = Feedback.CLOSED
    price_shift: float = 0.0
    slope_shift: float = 0.0
    non_price_losses: float = 0.03
    reports_loss_reasons: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "auction_type", AuctionType(self.auction_type))
        object.__setattr__(self, "feedback", Feedback(self.feedback))
        if not (self.share > 0.0 and 0.0 <= self.non_price_losses < 1.0):
            raise ConfigError(
                "an exchange has a share above 0 and a rate of non-price losses in [0, 1)",
                value=(self.name, self.share, self.non_price_losses),
                remedy="correct the exchange",
            )
        second = self.auction_type is AuctionType.SECOND_PRICE
        if second != (self.feedback is Feedback.CLEARING):
            raise ConfigError(
                "a second-price auction tells its clearing price, and no other does",
                value=(self.name, self.auction_type.name, self.feedback.value),
                remedy="use feedback='clearing_price' with auction_type=2",
            )


EXCHANGES: Final = (
    Exchange("adx-open", 0.40, feedback=Feedback.ALWAYS, price_shift=0.10),
    Exchange("nimbus", 0.25, feedback=Feedback.WINS, price_shift=-0.15, slope_shift=0.15),
    Exchange("playfront", 0.20, price_shift=0.25, slope_shift=-0.15, non_price_losses=0.0, reports_loss_reasons=False),
    Exchange("oldgate", 0.15, AuctionType.SECOND_PRICE, Feedback.CLEARING, price_shift=-0.25),
)  # fmt: skip


def one_exchange(
    feedback: Feedback | str = Feedback.CLOSED, auction_type: AuctionType = AuctionType.FIRST_PRICE
) -> tuple[Exchange, ...]:
    """A market with a single exchange and no loss but on price: the design experiments of SCIENCE.md 5."""
    return (Exchange("only", 1.0, auction_type, Feedback(feedback), non_price_losses=0.0),)


@dataclass(frozen=True, slots=True)
class Market:
    """The choices of a simulation; the defaults are a mobile DSP's traffic of a week.

    Truth: `shape` of the log price, `base_ctr` the mean click probability, `slope` the typical k of the win curve,
    `price_drift_per_day` added to the log price per day. `histograms`: the iPinYou price histograms (csv.gz) that
    EMPIRICAL reads.

    Logging policy: bids are `shading` · predicted value · exp(N(0, `bid_noise`)), where the prediction is a function
    of the features: confounded. A share `exploration` of the bids gets `exploration_sigma` more noise, and then every
    row has its `propensity`. The price level is set so that the intended bids win `observed_win_rate` of the time;
    floors, which raise bids, add a few points. `mean_value_cpm` sets the money scale, `floor_share` how many
    placements have a floor.
    """

    shape: Shape = Shape.LOG_LOGISTIC
    exchanges: tuple[Exchange, ...] = EXCHANGES
    base_ctr: float = 0.01
    base_cvr: float = 0.05
    slope: float = 3.0
    mean_value_cpm: float = 2.5
    observed_win_rate: float = 0.3
    floor_share: float = 0.6
    shading: float = 0.65
    bid_noise: float = 0.3
    exploration: float = 0.0
    exploration_sigma: float = 0.4
    days: float = 7.0
    start: datetime = datetime(2026, 3, 2, tzinfo=UTC)
    price_drift_per_day: float = 0.0
    n_apps: int = 2000
    n_campaigns: int = 10
    histograms: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", Shape(self.shape))
        object.__setattr__(self, "exchanges", tuple(self.exchanges))
        if self.shape is Shape.EMPIRICAL and self.histograms is None:
            raise ConfigError(
                "the empirical shape is read from a file of price histograms",
                value=self.histograms,
                remedy="set histograms to ipinyou_price_histograms_9campaigns.csv.gz",
            )
        if not self.exchanges:
            raise ConfigError("a market has an exchange", value="none", remedy="use bidml.simulate.EXCHANGES")
        if self.start.tzinfo is None:
            raise ConfigError("the start has a time zone", value=self.start, remedy="add tzinfo=UTC")
        for name, low, high in (
            ("base_ctr", 1e-5, 0.5), ("base_cvr", 1e-5, 0.5), ("slope", 0.3, 30.0), ("mean_value_cpm", 1e-3, 1e4),
            ("observed_win_rate", 0.01, 0.95), ("floor_share", 0.0, 1.0), ("shading", 0.01, 1.0),
            ("bid_noise", 0.0, 2.0), ("exploration", 0.0, 1.0), ("exploration_sigma", 0.01, 2.0),
            ("days", 0.01, 366.0), ("n_apps", 10, 100_000), ("n_campaigns", 1, 1000),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name} is from {low:g} to {high:g}",
                    value=getattr(self, name),
                    remedy=f"correct {name}",
                )
