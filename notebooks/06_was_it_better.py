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
# # 6. Was it better? Replay and off-policy evaluation
#
# A new policy never bid in the old log. What would it have earned there? On a closed exchange the log does not even
# say whether a higher bid would have won. This notebook shows the usual answer and its bias, then two honest ones,
# and checks all of them against what a simulator knows.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.pricing import optimal_bid_cpm, value_cpm
from bidml.replay import ReplayAuctions, off_policy_value, replay
from bidml.report import plots
from bidml.simulate import Market, draw_world, one_exchange

rng = np.random.default_rng(6)
market = Market(exchanges=one_exchange("closed"), base_ctr=0.03, n_apps=300, observed_win_rate=0.4)
world = draw_world(market, rng=rng)
past, other, week = (
    world.simulate(25_000, rng=rng),
    world.simulate(20_000, rng=rng),
    world.simulate(25_000, rng=rng),
)

won = past.log[past.log["won"]]
clicks = ClickModel(past.spec, random_state=0, n_jobs=2).fit(won, won["clicked"])
wins = WinRateModel(past.spec, random_state=0, n_jobs=2).fit(
    past.log, MarketPriceObservations.from_log(past.log)
)
judge = WinRateModel(past.spec, random_state=1, n_jobs=2).fit(
    other.log, MarketPriceObservations.from_log(other.log)
)

# %% [markdown]
# ## The policies
#
# Ours: clicks and curve learnt from the past. Beside it the bids as logged, and, to see what happens far from the
# log, our bids doubled. The *judge* is a curve learnt from other auctions: a policy must not be judged by the curve
# it was optimised on.

# %%
log = week.log.drop(columns=[name for name in week.log if name.startswith("true_")])
floor = log["floor_cpm"].fillna(0.0).to_numpy()
pctr = clicks.predict_proba(log)[:, 1]
ours = optimal_bid_cpm(
    value_cpm(pctr, log["value_per_click"].to_numpy()), wins.predict_curve(log), floor_cpm=floor
)
policies = {"as logged": log["bid_cpm"].to_numpy(), "ours": ours, "ours doubled": 2.0 * ours}
F = judge.predict_curve(log)

# %% [markdown]
# ## Replay: what the log knows, and what it does not
#
# A bid above a won one wins. A bid below a lost one loses. Everything else is open. The usual replay counts it as
# lost, which punishes every policy for bidding where the log did not win. Here are the bounds, the estimate that asks
# the judge's curve where the log is silent, and the truth. Value is counted with the true click probability, so that
# only the price is in question.

# %%
auctions = ReplayAuctions.from_log(log, pctr=week.log["true_pctr"].to_numpy())
known = ReplayAuctions.from_log(week.log)  # with the true market prices: every outcome is known
rows = {}
for name, bids in policies.items():
    found, true = replay(bids, auctions, curve=F), replay(bids, known)
    rows[name] = {
        "usual (lower)": found.surplus.lower,
        "estimate": found.surplus.estimate,
        "upper": found.surplus.upper,
        "truth": true.surplus.estimate if true.surplus.estimate is not None else true.surplus.lower,
        "open bids": found.n_unknown / len(log),
    }
    assert found.surplus.lower - 1e-9 <= rows[name]["truth"] <= found.surplus.upper + 1e-9
table = pd.DataFrame(rows).T
print(table.round(3).to_string())
error = (table[["usual (lower)", "estimate"]].sub(table["truth"], axis=0)).abs()
assert (error["estimate"] <= error["usual (lower)"] + 1e-9).all()
assert (
    table.loc["ours", "usual (lower)"] < table.loc["as logged", "usual (lower)"] < table.loc["ours", "truth"]
)

# %% [markdown]
# The truth is always between the bounds. The usual replay is far below it wherever the new bids differ from the logged
# ones: here it turns the ranking round, and would have kept the worse policy. The estimate is close.
#
# ## Off-policy value: from the clicks that came
#
# Replay believes the pctr. Off-policy evaluation lets real clicks correct it: each logged exposure is weighted by how
# much likelier the new bid would have won it. The doubly robust estimate (`dr`) combines both; intervals are
# bootstrapped.

# %%
believed = ReplayAuctions.from_log(log, pctr=pctr)
true_value = value_cpm(week.log["true_pctr"].to_numpy(), log["value_per_click"].to_numpy())


def true_surplus(bids):
    """What the simulator knows: expected surplus of each auction."""
    return week.truth.expected_surplus_cpm(true_value, bids)


found = off_policy_value(believed, ours, F, rng=np.random.default_rng(0))
truth = true_surplus(ours).mean()
print(found)
print(f"truth {truth:.4f}")
names = ["dm", "ips", "snips", "dr"]
intervals = [getattr(found, name) for name in names]
plots.estimates(
    ["model alone (dm)", "weighted (ips)", "self-normalised (snips)", "doubly robust (dr)"],
    *(np.array([getattr(x, end) for x in intervals]) for end in ("value", "low", "high")),
    truth=float(truth), what="surplus of our policy", unit="USD per 1000 auctions",
)  # fmt: skip

# %% [markdown]
# The model alone (`dm`) is far too optimistic: the policy bids most where the model errs upwards, and then the model is
# asked how well that went. The clicks that came correct it.
#
# ## Better than the one in service? Ask for the difference
#
# The level is blurred by clicks that both policies share. The *difference* on the same auctions is paired, and much
# sharper. This is the number to decide by.

# %%
lift = off_policy_value(believed, ours, F, rng=np.random.default_rng(0), against_cpm=policies["as logged"])
true_lift = (true_surplus(ours) - true_surplus(policies["as logged"])).mean()
print(f"dr difference {lift.dr.value:+.4f} [{lift.dr.low:+.4f}, {lift.dr.high:+.4f}], truth {true_lift:+.4f}")
width = (found.dr.high - found.dr.low) / (lift.dr.high - lift.dr.low)
print(f"the interval of the difference is {width:.1f} times narrower than that of the level")
assert np.sign(lift.dr.value) == np.sign(true_lift)

# %% [markdown]
# What only the simulator can show: the gain adding up over the week, auction by auction.

# %%
plots.champion_and_challenger(true_surplus(policies["as logged"]), true_surplus(ours), currency="USD")

# %% [markdown]
# Where do the bids differ? Below 1 the new policy shades more, above it bids more than the log did.

# %%
plots.bids_compared(policies["as logged"], ours, currency="USD")

# %% [markdown]
# ## Too far from the log
#
# A policy that bids where the log never won cannot be judged by the log. The effective sample shrinks, the intervals
# widen, and a warning says so; believe it rather than the number.

# %%
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    far = off_policy_value(believed, 12.0 * policies["as logged"], F, rng=np.random.default_rng(0))
print(f"effective sample {far.ess_share:.1%} of the exposures, for our own policy {found.ess_share:.1%}")
print(*far.warnings, sep="\n")

# %% [markdown]
# **What to remember.** The usual replay is a lower bound, not an estimate; let another curve judge; decide by the
# paired difference; heed the overlap. The same from the shell: `bidml replay`. Next: [your own
# logs](07_your_own_logs.md)
