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
# # 3. What does winning cost? The bid landscape
#
# The market price is the least bid that wins. On a closed exchange we never see it: a win says it was below our bid,
# a loss that it was above. This is survival analysis with both sides censored. This notebook compares the standard
# answer (Kaplan–Meier, one curve for all) with a curve for each auction, and then asks whether our bids *could* have
# taught either of them.

# %%
# %matplotlib inline
import warnings

import numpy as np

from bidml.fit import IdentifiabilityWarning, MarketPriceObservations, WinRateModel
from bidml.fit.win_baselines import EmpiricalWinRate
from bidml.metrics import log_loss
from bidml.report import plots, quantile_bins
from bidml.simulate import Market, draw_world, one_exchange

rng = np.random.default_rng(3)
market = Market(
    exchanges=one_exchange("closed"), observed_win_rate=0.4, bid_noise=0.35, n_apps=300, floor_share=0.0
)
world = draw_world(market, rng=rng)
train, test = world.simulate(25_000, rng=rng), world.simulate(8_000, rng=rng)
seen = MarketPriceObservations.from_log(train.log)
print(f"{len(seen):,} auctions, {seen.won.mean():.0%} won, prices known exactly: {seen.exact.mean():.0%}")

# %% [markdown]
# ## One curve for all
#
# The step function that best explains wins and losses at the bids made, whatever the auction.

# %%
steps = EmpiricalWinRate(train.spec).fit(train.log, seen)
model = WinRateModel(train.spec, random_state=0, n_jobs=2).fit(train.log, seen)

grid = np.geomspace(0.08, 15.0, 160)
ten = test.log.iloc[:400]


def mean_curve(win_rate):
    """The mean over auctions of P(win) at each bid of the grid."""
    return np.array([np.mean(win_rate(np.full(len(ten), b))) for b in grid])


curve = model.predict_curve(ten)
truth = test.truth[slice(0, 400)]
plots.landscape(
    grid,
    {
        "one step function": mean_curve(lambda b: steps.predict_win_rate(ten, b)),
        "mean of fitted curves": mean_curve(curve.win_rate),
    },
    truth=mean_curve(truth.win_rate),
    logged_bid_cpm=train.log["bid_cpm"].to_numpy(),
    currency="USD",
    title="The market as a whole",
)

# %% [markdown]
# The step function is too flat. Where we bid high the inventory was good, and others bid high too: the same bid wins
# less often than the mean auction would suggest. It answers "how often did bids of 3 USD win", not "how often would 3
# USD win *here*". The fitted curves, averaged, follow the truth, because each is conditioned on the auction.
#
# ## A curve for each auction
#
# A cheap auction and an expensive one. The step function is the same in both.

# %%
by_price = np.argsort(curve.location)


def one_auction(row):
    """What both models and the truth say of one auction."""
    many = np.full(len(grid), row)
    return plots.landscape(
        grid,
        {
            "one step function": steps.predict_win_rate(ten.iloc[many], grid),
            "fitted": curve[many].win_rate(grid),
        },
        truth=truth[many].win_rate(grid),
        currency="USD",
        title=f"{ten.iloc[row]['banner_size']} in {ten.iloc[row]['app_bundle']}",
    )


one_auction(by_price[40])

# %%
one_auction(by_price[360])

# %% [markdown]
# ## Is it right? Reliability of the win rate

# %%
bid, won = test.log["bid_cpm"].to_numpy(), test.log["won"].to_numpy()
p = model.predict_curve(test.log).win_rate(bid)
plots.reliability(quantile_bins(p, won, p), what="win rate")

# %%
contenders = {
    "one step function": steps.predict_win_rate(test.log, bid),
    "fitted curves": p,
    "truth": test.truth.win_rate(bid),
}
losses = {name: log_loss(won, q) for name, q in contenders.items()}
for name, loss in losses.items():
    print(f"{name:18} log loss {loss:.4f}")
assert losses["truth"] < losses["fitted curves"] < losses["one step function"]

# %% [markdown]
# ## Could these bids teach it at all?
#
# Location and slope are told apart only by bids that vary *for equal auctions*. A bidder that always bids 65 % of
# value sees one point of each curve. The report says how much of ln bid the features explain, how uncertain the slope
# is, and what that is expected to cost.

# %%
print(model.identifiability_)

# %%
quiet = draw_world(
    Market(
        exchanges=one_exchange("closed"), observed_win_rate=0.4, bid_noise=0.02, n_apps=300, floor_share=0.0
    ),
    rng=np.random.default_rng(3),
).simulate(12_000, rng=np.random.default_rng(4))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    blind = WinRateModel(quiet.spec, random_state=0, n_jobs=2).fit(
        quiet.log, MarketPriceObservations.from_log(quiet.log)
    )
said = [str(w.message) for w in caught if issubclass(w.category, IdentifiabilityWarning)]
print(blind.identifiability_)
print(said[0])
assert blind.identifiability_.bid_r2 > model.identifiability_.bid_r2

# %% [markdown]
# Here is what the warning means. At the bids that were made both models are right. Asked about *other* bids, and a
# price optimiser asks about nothing else, the one that learnt from bids that hardly vary is off by more.

# %%
some = quiet[slice(0, 2000)]
guess = blind.predict_curve(some.log)
for name, sim, fitted in (
    ("varied bids", test, model.predict_curve(test.log)),
    ("bids hardly vary", some, guess),
):
    logged = sim.log["bid_cpm"].to_numpy()
    errors = [np.abs(fitted.win_rate(f * logged) - sim.truth.win_rate(f * logged)).mean() for f in (1.0, 2.0)]
    print(
        f"{name:17} mean error of the win rate at our bid {errors[0]:.3f}, at twice our bid {errors[1]:.3f}"
    )

# %%
median_row = int(np.argsort(guess.location)[1000])
many = np.full(len(grid), median_row)
plots.landscape(
    grid, {"fitted, bids hardly vary": guess[many].win_rate(grid)}, truth=some.truth[many].win_rate(grid),
    logged_bid_cpm=quiet.log["bid_cpm"].to_numpy(), currency="USD", title="Learnt from bids that hardly vary",
)  # fmt: skip

# %% [markdown]
# The cure costs little: `bidml.pricing.explore` varies 5 to 10 % of the bids and logs the density it drew them from.
# Exchanges that tell the minimum bid to win need no cure; their prices are exact.
#
# **What to remember.** Censoring is not missing data; the pooled curve is confounded; ask for identifiability before
# you trust a slope. Next: [the price](04_price.md)
