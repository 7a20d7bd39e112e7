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
# # 4. The price: how much of the value to bid
#
# In a first-price auction a bid of b earns (v − b) · F(b) on average. Bid the value and you win often and earn
# nothing; bid low and you keep much of little. With the value of notebook 2 and the curve of notebook 3 the best bid
# is one number. Here the truth is known, so we can say what each policy leaves on the table.

# %%
# %matplotlib inline
import numpy as np

from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.pacing import BudgetPacer, DualDescent, TrafficForecast
from bidml.pricing import optimal_bid_cpm, surplus_cpm, value_cpm
from bidml.report import plots
from bidml.simulate import Market, draw_world

rng = np.random.default_rng(4)
world = draw_world(Market(base_ctr=0.02, n_apps=300), rng=rng)
train, test = world.simulate(40_000, rng=rng), world.simulate(16_000, rng=rng)
won = train.log[train.log["won"]]
clicks = ClickModel(train.spec, random_state=0, n_jobs=2).fit(won, won["clicked"])
wins = WinRateModel(train.spec, random_state=0, n_jobs=2).fit(
    train.log, MarketPriceObservations.from_log(train.log)
)

log = test.log
as_won = value_cpm(clicks.predict_proba(log)[:, 1], log["value_per_click"].to_numpy())
chances = wins.predict_curve(train.log).win_rate(train.log["bid_cpm"].to_numpy())
clicks.fit_traffic_level(train.log, won=train.log["won"], clicked=train.log["clicked"], win_rate=chances)
value = value_cpm(clicks.predict_proba(log)[:, 1], log["value_per_click"].to_numpy())
curve = wins.predict_curve(log)
floor = log["floor_cpm"].fillna(0.0).to_numpy()
at = log["auction_type"].to_numpy()
bid = optimal_bid_cpm(value, curve, floor_cpm=floor, auction_type=at)

# %% [markdown]
# The last step but one is easily forgotten. Clicks are seen where we won, and we won where we expected much, often
# too much: the winner's curse. `fit_traffic_level` moves the level of the click model from the impressions won to all
# auctions bid in; `as_won` keeps the values before it, to compare.
#
# ## One auction
#
# The blue curve is what the model expects to earn from each bid, the black one what is true. The optimum is flat:
# missing the best bid by a few percent costs almost nothing, missing the level of the value costs a lot.

# %%
true_value = value_cpm(log["true_pctr"].to_numpy(), log["value_per_click"].to_numpy())
rows = np.flatnonzero((at == 1) & (floor > 0.0) & (bid > 1.2 * floor) & (bid > 1.0))
row = rows[np.argsort(np.abs(np.log(value[rows] / true_value[rows])))[len(rows) // 4]]


def surplus_of(row):
    """The surplus curve of one auction, as the model and as the truth see it."""
    grid = np.linspace(0.0, 1.15 * value[row], 300)[1:]
    many = np.full(len(grid), row)
    best = test.truth[many[:1]].optimal_bid_cpm(value[row])
    return plots.surplus_curve(
        grid,
        surplus_cpm(value[row], grid, curve[many].win_rate(grid)),
        truth_cpm=surplus_cpm(value[row], grid, test.truth[many].win_rate(grid)),
        chosen_cpm=float(bid[row]),
        best_cpm=float(best[0]),
        value_cpm=float(value[row]),
        floor_cpm=float(floor[row]),
        currency="USD",
    )


surplus_of(row)

# %% [markdown]
# ## Floors
#
# A floor above the optimum is worth meeting as long as the value is above it: the grey part of the curve is out of
# reach, and its right edge is the best that is left. Where the value is below the floor, no bid.

# %%
at_floor = np.flatnonzero((at == 1) & (bid == floor) & (bid > 0.0) & (value > 1.3 * floor))
print(f"raised to the floor: {len(at_floor):,}; no bid, value below the floor: {(bid == 0.0).sum():,}")
row = at_floor[np.argsort(value[at_floor])[len(at_floor) // 2]]
surplus_of(row)

# %% [markdown]
# ## Shading
#
# How much of the value is bid, over all first-price auctions. There is no "right" shade: cheap, competitive inventory
# needs most of the value, expensive impressions with little competition a third of it.

# %%
first = at == 1
plots.shading(bid[first], value[first])

# %% [markdown]
# ## Money: five policies, the same auctions
#
# Every policy sees the same auctions and is paid by the true curves. The constant shade is the best in hindsight,
# chosen with the knowledge of the answer, which no bidder has. `oracle` knows clicks and prices exactly.

# %%
truth = test.truth
shades = np.linspace(0.1, 1.0, 46)


def bids_at(shade):
    """Each bid is this share of the believed value, raised to the floor where the value allows."""
    return np.where(value > floor, np.maximum(shade * value, floor), 0.0)


def earned(bids):
    """Mean true surplus per 1,000 auctions, and half its 95 % interval."""
    surplus = truth.expected_surplus_cpm(true_value, bids)
    return {"surplus_cpm": surplus.mean(), "surplus_ci95_cpm": 1.96 * surplus.std() / np.sqrt(len(surplus))}


best_shade = max(shades, key=lambda shade: earned(bids_at(shade))["surplus_cpm"])
policies = {
    "oracle": earned(truth.optimal_bid_cpm(true_value)),
    "bidml, true pctr": earned(optimal_bid_cpm(true_value, curve, floor_cpm=floor, auction_type=at)),
    "bidml": earned(bid),
    "bidml, level as won": earned(optimal_bid_cpm(as_won, curve, floor_cpm=floor, auction_type=at)),
    f"best constant shade, {best_shade:.2f}": earned(bids_at(best_shade)),
    "as logged": earned(log["bid_cpm"].to_numpy()),
    "truthful": earned(bids_at(1.0)),
}
for name, found in policies.items():
    print(
        f"{name:26} {found['surplus_cpm']:.3f} USD  {found['surplus_cpm'] / policies['oracle']['surplus_cpm']:6.1%}"
    )
assert policies["bidml"]["surplus_cpm"] > policies[f"best constant shade, {best_shade:.2f}"]["surplus_cpm"]
assert policies["bidml, true pctr"]["surplus_cpm"] > 0.9 * policies["oracle"]["surplus_cpm"]
plots.surplus_of_policies(policies, currency="USD")

# %% [markdown]
# Read it from the top: what is lost between `oracle` and `bidml, true pctr` is the win curve's fault, the next step the
# click model's. Better clicks, not better shading, is where the remaining money is in this market. The level of the
# clicks matters little in this world; in others it is worth three to four points (docs/ctr.md).
#
# ## A budget
#
# With a budget that is spent by noon, the question changes: which auctions to leave. The answer is the same bid for a
# smaller value, v · multiplier, and the pacer finds the multiplier while the day runs, from what was spent.

# %%
order = np.argsort(log["timestamp"].to_numpy(), kind="stable")
hour_of = (np.arange(len(log)) * 24 // len(log))[np.argsort(order, kind="stable")]
price_needed = np.maximum(truth.market_price_cpm, floor)


def a_day(multiplier_of, spent_on=lambda hour, spend, n: None):
    """Bids hour by hour; returns what was spent, the multipliers, and the value won."""
    spent, used, gained = [], [], 0.0
    for hour in range(24):
        rows = np.flatnonzero(hour_of == hour)
        multiplier = multiplier_of(hour)
        bids = optimal_bid_cpm(
            value[rows], curve[rows], floor_cpm=floor[rows], auction_type=at[rows], pacing_multiplier=multiplier
        ) if multiplier > 0.0 else np.zeros(len(rows))  # fmt: skip
        win = (bids > 0.0) & (bids >= price_needed[rows])
        paid = np.where(at[rows] == 2, price_needed[rows], bids)
        spend = float(paid[win].sum()) / 1000.0
        spent_on(hour, spend, len(rows))
        spent.append(spend)
        used.append(multiplier)
        gained += float(true_value[rows][win].sum()) / 1000.0
    return np.cumsum(spent), np.array(used), gained


free, _, all_value = a_day(lambda hour: 1.0)
budget = 0.35 * free[-1]
forecast = TrafficForecast.flat(24, len(log))
pacer = BudgetPacer(budget, forecast, DualDescent())
spent, multipliers, gained = a_day(
    pacer.begin, lambda hour, spend, n: pacer.report(hour, spend=spend, n_auctions=n)
)

left = {"money": budget}


def until_empty(hour):
    return 1.0 if left["money"] > 0.0 else 0.0


asap, _, asap_gained = a_day(until_empty, lambda hour, spend, n: left.update(money=left["money"] - spend))
print(f"budget {budget:.2f} USD of {free[-1]:.2f} that could be spent")
print(f"paced:       spent {spent[-1]:.2f}, value won {gained:.2f} USD, {gained / spent[-1]:.2f} per USD")
print(
    f"until empty: spent {asap[-1]:.2f}, value won {asap_gained:.2f} USD, {asap_gained / asap[-1]:.2f} per USD"
)
assert gained / spent[-1] > asap_gained / asap[-1]
plots.pacing(
    np.arange(1.0, 25.0),
    spent,
    multipliers,
    budget=budget,
    currency="USD",
    target=budget * np.arange(1, 25) / 24,
)

# %% [markdown]
# **What to remember.** The optimum is flat, the value is not; floors move bids, not the rule; the remaining money is
# in the click model; a budget is a multiplier. Next: [what the bidder will see](05_export_and_score.md)
