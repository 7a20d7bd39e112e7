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
# # 5. Export, certify, score: what the bidder will see
#
# What was fitted in notebooks 2 and 3 becomes **one ONNX file**: features, click model, calibration, win curve and
# price. The bidder loads it with `bidml.score`, which needs nothing but the standard library; any other language runs
# the same file with onnxruntime. This notebook writes it, proves that both compute the same bid, looks at one
# decision, and times it.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import numpy as np

from bidml.blueprint import Blueprint
from bidml.certify import verify
from bidml.export import write_artifact
from bidml.features import raw_columns
from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.latency import latency_samples_us
from bidml.report import plots
from bidml.report.why import waterfall
from bidml.score import NoBidReason, Scorer
from bidml.simulate import Market, draw_world

rng = np.random.default_rng(5)
world = draw_world(Market(base_ctr=0.03, n_apps=300), rng=rng)
train, live = world.simulate(30_000, rng=rng), world.simulate(4_000, rng=rng)
won = train.log[train.log["won"]]
clicks = ClickModel(train.spec, random_state=0, n_jobs=2).fit(won, won["clicked"])
wins = WinRateModel(train.spec, random_state=0, n_jobs=2).fit(
    train.log, MarketPriceObservations.from_log(train.log)
)

# %% [markdown]
# ## Export
#
# A blueprint is the plain description of the whole model. Writing it certifies it: the file holds rows with their
# expected outputs, and nothing is written that the oracle, onnxruntime and the native scorer do not agree on.

# %%
folder = Path(tempfile.mkdtemp())
blueprint = Blueprint(train.spec, clicks.to_blueprint(), wins.to_blueprint(), "USD")
sample = {name: cells[:500].tolist() for name, cells in raw_columns(live.log, train.spec).items()}
digest = write_artifact(blueprint, folder / "model.onnx", sample_rows=sample)
certificate = verify(folder / "model.onnx")
print(f"{(folder / 'model.onnx').stat().st_size / 1e3:.0f} kB, sha256 {digest[:12]}…")
for evaluator, differences in certificate.differences.items():
    print(
        f"{evaluator:12} {certificate.n_rows} rows, largest relative difference {max(differences.values()):.1e}"
    )
assert max(max(d.values()) for d in certificate.differences.values()) <= 1e-12

# %% [markdown]
# ## Load and bid
#
# From here on only `bidml.score` is needed. A request is an OpenRTB object, a line item what we may bid for. The
# answer is a price in CPM; 0.0 is no bid. The hot path raises nothing, whatever the request holds.

# %%
scorer = Scorer.load(folder / "model.onnx")
requests = live.requests(slice(None))
line = scorer.line_item(value_per_click=0.30, cap_cpm=12.0, **live.line_item_fields(0))
bids = np.array([scorer.bid(request, line) for request in requests])
counts = {name: n for name, n in scorer.counters().items() if n}
print(counts)
for nonsense in ({}, {"imp": "x"}, None, {"imp": [{"bidfloor": float("nan")}]}):
    bid, reason = scorer.decide(nonsense, line)
    print(f"{nonsense!s:40} {bid}  {NoBidReason(reason).name.lower()}")
    assert bid == 0.0 or bid <= 12.0

# %% [markdown]
# ## The same features on both sides
#
# Training read columns of a table, bidding reads a nested request: the classic source of skew. Here the bids of the
# hot path, request by request, against the fitted Python models and the reference price.

# %%
from bidml.pricing import optimal_bid_cpm, value_cpm

first_line = live.line_item_fields(0)
asked = live.log.assign(campaign_id=first_line["campaign_id"], creative=first_line["creative"])
reference = optimal_bid_cpm(
    value_cpm(clicks.predict_proba(asked)[:, 1], 0.30),
    wins.predict_curve(asked),
    floor_cpm=asked["floor_cpm"].fillna(0.0).to_numpy(),
    cap_cpm=12.0,
    auction_type=asked["auction_type"].to_numpy(),
)
both = (bids > 0) & (reference > 0)
difference = np.abs(bids[both] / reference[both] - 1.0).max()
one_sided = (bids > 0) != (reference > 0)
print(
    f"{both.sum():,} bids, largest relative difference {difference:.1e}; only one side bids: {one_sided.sum()}"
)
assert difference < 1e-9
assert not one_sided.any()

# %% [markdown]
# ## Why this price
#
# Every decision can be explained in money, from the value to the bid.

# %%
first_price = live.log["auction_type"].to_numpy() == 1
row = int(np.argsort(np.where(first_price, bids, 0.0))[-400])
why = scorer.explain(requests[row], line)
print(why)
assert why.bid_cpm == bids[row]
waterfall(why)

# %% [markdown]
# ## How long does it take?
#
# Each call timed alone, over distinct requests, the clock's own cost taken off. On a busy machine the tail is the
# machine's; `benchmarks/README.md` has the careful measurement.

# %%
samples = np.array(latency_samples_us(scorer, requests, line, seconds=0.5))
print(
    f"{len(samples):,} bids, median {np.median(samples):.2f} µs: {1e6 / np.median(samples):,.0f} a second on one core"
)
plots.latency(samples)

# %% [markdown]
# **What to remember.** One file, certified; the same bid everywhere; no exception on the hot path; every decision
# explains itself. Next: [was it better?](06_was_it_better.md)
