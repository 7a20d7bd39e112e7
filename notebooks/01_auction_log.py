# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Look at the auction log
#
# Everything is learnt from one table: a row for each auction we bid in. Before any model, look at it. This notebook
# asks what a log knows, what it hides, and what is wrong with it. The log is simulated, so that we can check every
# answer against the truth; the last part opens a real one.

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd

from bidml.log import price_loss, read_log, validate
from bidml.report import plots, quantile_bins, wilson_interval
from bidml.simulate import Market, simulate

sim = simulate(60_000, rng=np.random.default_rng(1), market=Market(price_drift_per_day=0.06))
log = sim.log
log[["timestamp", "exchange", "auction_type", "floor_cpm", "bid_cpm", "won", "price_cpm", "clicked"]].head()

# %% [markdown]
# ## The funnel
#
# Money flows through very few rows. Of 60,000 auctions some hundred end in a click; that is all a click model has.

# %%
funnel = pd.Series(
    {
        "auctions": len(log),
        "won": int(log["won"].sum()),
        "clicked": int(log["clicked"].sum()),
        "converted": int(log["converted"].sum()),
    }
)
spend = log.loc[log["won"], "price_cpm"].sum() / 1000.0
print(funnel.to_string())
print(
    f"spend {spend:,.2f} USD, {1000 * spend / funnel['won']:.2f} CPM, {spend / funnel['clicked']:.2f} USD a click"
)

# %% [markdown]
# ## Exchanges tell different things
#
# On a win or a loss one exchange names the price that would have won (`min_bid_to_win_cpm`), another only on wins, a
# third never. In second price the price paid *is* the market price. Not every loss is about the price: timeouts and
# blocked creatives would have lost at any bid, and must not teach the win curve.

# %%
told = pd.DataFrame(
    {
        "auctions": log.groupby("exchange").size(),
        "second price": log["auction_type"].eq(2).groupby(log["exchange"]).mean(),
        "won": log.groupby("exchange")["won"].mean(),
        "price told on wins": log[log["won"]]
        .groupby("exchange")["min_bid_to_win_cpm"]
        .apply(lambda x: x.notna().mean()),
        "price told on losses": log[~log["won"]]
        .groupby("exchange")["min_bid_to_win_cpm"]
        .apply(lambda x: x.notna().mean()),
        "losses not about price": 1 - price_loss(log)[~log["won"]].groupby(log["exchange"]).mean(),
    }
)
told.round(3)

# %% [markdown]
# ## What a bid buys
#
# The win rate rises with the bid, differently on each exchange. Points are observed with their 95 % intervals; the
# lines are the simulator's truth for the same auctions.

# %%
about_price = (log["won"] | price_loss(log)).to_numpy()
bid, won = log["bid_cpm"].to_numpy(), log["won"].to_numpy()
truth = sim.truth.win_rate(bid)
exchange = log["exchange"].to_numpy()
bins = {
    name: quantile_bins(bid[rows], won[rows], truth[rows], n_bins=10)
    for name in np.unique(exchange)
    if (rows := (exchange == name) & about_price).any()
}
plots.win_rate_by_exchange(bins, currency="USD")

# %% [markdown]
# This is **not** the curve to bid by. High bids went to good inventory, where everybody bids high: bid and market
# price share causes. Notebook 3 takes the confounding apart.
#
# ## Prices move
#
# In this market prices rise by 6 % a day. The band is the middle half of the prices paid.

# %%
paid = log[log["won"]].set_index("timestamp")["price_cpm"].resample("6h")
quartiles = paid.quantile([0.25, 0.5, 0.75]).unstack()
when = quartiles.index.tz_localize(None).to_numpy()
plots.drift(
    when, quartiles[0.5].to_numpy(), quartiles[0.25].to_numpy(), quartiles[0.75].to_numpy(),
    what="price paid", unit="USD CPM", band="middle half",
)  # fmt: skip

# %% [markdown]
# The click rate over the same days, with intervals: nothing there but noise. A model that chased this wiggle would be
# chasing chance.

# %%
clicks = log[log["won"]].set_index("timestamp")["clicked"].resample("12h").agg(["mean", "size"])
low, high = wilson_interval(clicks["mean"].to_numpy(), clicks["size"].to_numpy())
plots.drift(
    clicks.index.tz_localize(None).to_numpy(),
    clicks["mean"].to_numpy(),
    low,
    high,
    what="click rate",
    unit="",
)

# %% [markdown]
# ## Break it, and see what is said
#
# `validate` sets bad rows aside, each under the first rule it breaks, and refuses a log that is bad as a whole. Here
# we spoil three rows the way real pipelines do.

# %%
spoilt = log.copy()
spoilt.loc[10, "bid_cpm"] = -1.0
spoilt.loc[11, "clicked"] = True
spoilt.loc[11, "won"] = False
spoilt.loc[12, "auction_id"] = spoilt.loc[13, "auction_id"]
checked = validate(spoilt, needs=["ctr", "win"])
print(checked.quarantine.counts)
assert len(checked.quarantine.rows) == len(log) - len(checked.log) == 3

# %% [markdown]
# A wrong unit is the expensive mistake: prices in micros beside bids in CPM. The check compares money columns with
# each other, so it needs no opinion about what a price should be.

# %%
from bidml.errors import DataError

try:
    validate(log.assign(price_cpm=log["price_cpm"] * 1e6), needs=["win"])
except DataError as error:
    print(error)
else:
    raise AssertionError("prices in micros passed")

# %% [markdown]
# ## A real log
#
# iPinYou's contest logs of 2013 are second price: 24 tab-separated columns, prices in fen per CPM. If the files are
# beside the project (`../shared/data`), here is what the market price of won auctions looks like: round numbers,
# spikes at the floors, a long tail. No smooth model will ever draw this; what matters is the money it leaves
# (notebook 4).

# %%
DATA = next(
    (p / "shared" / "data" for p in Path.cwd().resolve().parents if (p / "shared" / "data").is_dir()), None
)
figure = None
if DATA is not None:
    real = read_log(DATA / "ipinyou_2259_log_rows.tsv.gz", format="ipinyou")
    real = validate(real, needs=["price"]).log
    prices = real["price_cpm"].to_numpy()
    print(f"{len(real):,} impressions, median price {np.median(prices):.2f} {real['currency'].iloc[0]} CPM")
    grid = np.geomspace(0.05, 3.0, 400)
    rates = (prices[None, :] <= grid[:, None]).mean(axis=1)
    figure = plots.landscape(
        grid, {"market price of won auctions": rates}, currency="CNY", logged_bid_cpm=prices
    )
figure

# %% [markdown]
# **What to remember.** Clicks are few; every exchange tells something else; the raw win rate is confounded; prices
# drift; and a log is checked before it is believed. Next: [what is a click worth?](02_click_model.md)
