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
# # 2. What is a click worth? Fit, calibrate, slice
#
# The value of an impression is 1000 · pctr · value per click. A model that sorts well but is 30 % too high pays 30 %
# too much for everything. So: fit, then ask *is the level right*, then ask *where* it is not. The simulator knows the
# true click probability of every impression; we look at it only to judge.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from bidml.fit import ClickModel
from bidml.metrics import auc_interval, calibration_by_segment, calibration_ratio_interval, normalized_entropy
from bidml.report import gain_curve, log_bins, plots, quantile_bins
from bidml.simulate import Market, draw_world

rng = np.random.default_rng(2)
world = draw_world(Market(base_ctr=0.02, n_apps=400), rng=rng)
sim = world.simulate(140_000, rng=rng)
log = sim.log
shown = log[log["won"]].reset_index(drop=True)
cut = shown["timestamp"].quantile(0.75)
train, test = shown[shown["timestamp"] < cut], shown[shown["timestamp"] >= cut].reset_index(drop=True)
print(
    f"{len(train):,} impressions to learn from ({train['clicked'].sum()} clicks), {len(test):,} to judge by"
)

# %% [markdown]
# The split is in time, because the model will be used later than it was trained. A random split would let it peek at
# the same hour, user and creative.
#
# ## Fit
#
# One estimator does encoding (in time order: no row sees its own click), weights of categories and numbers, trees where
# they pay, and calibration. It also looks for what goes together: two categories, or a category and a number.

# %%
model = ClickModel(sim.spec, parents={"tag_id": "app_bundle"}, random_state=0, n_jobs=2)
model.fit(train, train["clicked"])
p, y, truth = model.predict_proba(test)[:, 1], test["clicked"].to_numpy(), test["true_pctr"].to_numpy()

ratio = calibration_ratio_interval(y, p)
scores = pd.DataFrame(
    {
        name: {"normalized entropy": normalized_entropy(y, q), "AUC": auc_interval(y, q).value}
        for name, q in {
            "base rate": np.full(len(y), train["clicked"].mean()),
            "model": p,
            "truth": truth,
        }.items()
    }
).T
print(scores.round(4).to_string())
for (one, other), z in model.found_crosses_.items():
    print(f"\n{one} and {other} go together: {z:.1f} standard errors")
print(f"\npredicted / observed: {ratio.value:.3f}, 95 % interval [{ratio.low:.3f}, {ratio.high:.3f}]")
assert scores.loc["truth", "normalized entropy"] < scores.loc["model", "normalized entropy"] < 1.0

# %% [markdown]
# Normalized entropy is log loss relative to knowing only the base rate. Even the truth has more than 0.9: clicks are
# mostly chance, and no model can do better than the last row.
#
# ## Does it sort? Gain and lift

# %%
plots.gain(gain_curve(p, y))

# %%
plots.lift(quantile_bins(p, y, p, n_bins=10))

# %% [markdown]
# ## Is the level right? Reliability
#
# Bins of equal size show the mass; bins per decade show the rare high predictions, where the expensive bids are. On
# the line the probability can be multiplied with money.

# %%
plots.reliability(quantile_bins(p, y, p, n_bins=12), log_bins(p, y))

# %% [markdown]
# Clicks blur this picture. Against the true probability, which only a simulator has, it is sharp: the bins are in the
# right order, and the level is off by what a few hundred clicks cannot tell.

# %%
import dataclasses

against_truth = quantile_bins(p, y, p, n_bins=12)
by_truth = quantile_bins(p, y, truth, n_bins=12).predicted
exact = dataclasses.replace(
    against_truth, observed=by_truth, low=by_truth, high=by_truth, kind="true mean of the bin"
)
print(f"mean prediction / mean true probability: {p.mean() / truth.mean():.3f}")
plots.reliability(exact)

# %% [markdown]
# ## Where is it wrong? Slices, in money
#
# An overall ratio of 1 can hide a segment at 2 and another at 0.7. The table is ordered by money misvalued, and says
# which deviation chance does not explain.

# %%
by_size = calibration_by_segment(y, p, test["banner_size"], value_per_event=test["value_per_click"])
print(
    by_size[["n_rows", "events", "calibration_ratio", "low", "high", "misvalued", "is_off"]]
    .round(3)
    .to_string()
)
plots.calibration_by_segment(
    list(by_size.index), *(by_size[c].to_numpy() for c in ("calibration_ratio", "low", "high")),
    n_events=by_size["events"].to_numpy(dtype=int), by="banner size",
)  # fmt: skip

# %% [markdown]
# ## What happens without calibration, and with a wrong one
#
# Keep a tenth of the unclicked impressions and forget to say so: the model sorts just as well and is many times too
# high. Say so (`negative_sampling_rate`), and the correction, an addition of ln 0.1 to the log-odds, is exact.

# %%
keep = train["clicked"] | (rng.random(len(train)) < 0.1)
sample = train[keep]
found = {}
for name, rate in (("not told", 1.0), ("told", 0.1)):
    small = ClickModel(sim.spec, negative_sampling_rate=rate, random_state=0, n_jobs=2).fit(
        sample, sample["clicked"]
    )
    q = small.predict_proba(test)[:, 1]
    found[name] = calibration_ratio_interval(y, q)
    print(f"{name:9} predicted / observed {found[name].value:6.3f}   AUC {auc_interval(y, q).value:.3f}")
assert found["not told"].low > 3.0
assert found["told"].low < 1.2
assert found["told"].high > 0.85

# %% [markdown]
# ## A leak
#
# A column that is filled only after the click is the classic way to a wonderful model that earns nothing. The fit
# warns about any single feature that is too good by itself.

# %%
import warnings

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.fit import LeakWarning

leaky = FeatureSpec((*sim.spec.features, Feature("landing_ms", FeatureKind.NUMBER, "imp.ext.landingms")))
landing = np.where(train["clicked"], rng.gamma(4.0, 200.0, len(train)), np.nan)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ClickModel(leaky, random_state=0, n_jobs=2).fit(train.assign(landing_ms=landing), train["clicked"])
said = [str(w.message) for w in caught if issubclass(w.category, LeakWarning)]
print(said[0])
assert "landing_ms" in said[0]

# %% [markdown]
# **What to remember.** Split in time; judge by normalized entropy *and* calibration; use intervals, clicks are few;
# look at segments in money; say how a log was sampled. Next: [what does winning cost?](03_bid_landscape.md)
