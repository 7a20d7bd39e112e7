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
# # 7. Your own logs: from raw events to a first model
#
# Two ways lead to the auction log. If you have raw events (bids, wins, losses, clicks), join them. If a warehouse has
# joined them already, map its columns. Then one command trains. Here events are made from a simulation, so that the
# joined log can be compared with what it should be; with your own, start at the second cell.

# %%
# %matplotlib inline
import json
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.log import JoinRules, join_events, read_log, validate
from bidml.report import plots, quantile_bins
from bidml.score import Scorer
from bidml.simulate import Market, simulate
from bidml.train import parse_config, train

rng = np.random.default_rng(7)
sim = simulate(24_000, rng=rng, market=Market(base_ctr=0.03, n_apps=200, days=2.0))
folder = Path(tempfile.mkdtemp())


def events_of(sim):
    """What a bidder and its exchanges write: one JSON object an event."""
    log = sim.log
    for row, request in zip(log.itertuples(), sim.requests(slice(None)), strict=True):
        ms = int(row.timestamp.timestamp() * 1000)
        line = {"id": row.line_item_id, "campaign_id": row.campaign_id, "creative": row.creative}
        about = {"auction_id": row.auction_id, "timestamp_ms": ms}
        yield about | {
            "type": "bid", "request": request, "bid_cpm": row.bid_cpm, "currency": row.currency, "line_item": line,
            "exchange": row.exchange, "value_per_click": row.value_per_click,
        }  # fmt: skip
        told = {} if np.isnan(row.min_bid_to_win_cpm) else {"min_bid_to_win_cpm": row.min_bid_to_win_cpm}
        if row.won:
            yield about | {"type": "win", "timestamp_ms": ms + 90, "price_cpm": row.price_cpm} | told
        else:
            reason = {} if pd.isna(row.loss_reason) else {"loss_reason": int(row.loss_reason)}
            yield about | {"type": "loss", "timestamp_ms": ms + 110} | told | reason
        if row.clicked:
            yield about | {"type": "click", "timestamp_ms": int(row.click_timestamp.timestamp() * 1000)}


events = [json.dumps(event) for event in events_of(sim)]
rng.shuffle(events)  # order does not matter
events += events[:500]  # an hour that was delivered twice
events += ['{"type": "win", "auction_id": "nobody", "timestamp_ms": 1772500000000}', "half a li"]
(folder / "events").mkdir()
for i in range(3):
    (folder / "events" / f"part-{i}.jsonl").write_text("\n".join(events[i::3]) + "\n")
print(events[0][:300], "…")

# %% [markdown]
# ## Say what a feature is, once
#
# Name, kind, and where in the OpenRTB request it is found. The same declaration reads the logged request now and the
# live one later, so training and bidding cannot disagree. Start small: inventory, device, time, campaign.

# %%
spec = FeatureSpec(
    tuple(
        Feature(name, kind, source)
        for name, kind, source in [
            ("app", FeatureKind.CATEGORY, "app.bundle"),
            ("placement", FeatureKind.CATEGORY, "imp.tagid"),
            ("size", FeatureKind.CATEGORY, "derived.banner_size"),
            ("country", FeatureKind.CATEGORY, "device.geo.country"),
            ("exchange", FeatureKind.CATEGORY, "ext.exchange"),
            ("model", FeatureKind.CATEGORY, "device.model"),
            ("campaign_id", FeatureKind.CATEGORY, "line_item.campaign_id"),
            ("creative", FeatureKind.CATEGORY, "line_item.creative"),
            ("floor", FeatureKind.NUMBER, "imp.bidfloor"),
            ("hour", FeatureKind.NUMBER, "derived.hour_of_day"),
            ("depth", FeatureKind.NUMBER, "imp.ext.sessiondepth"),
        ]
    )
)

# %% [markdown]
# ## Join
#
# Out of core, and it says what became of every event. Nothing is dropped silently.

# %%
rules = JoinRules(
    notice_window=timedelta(hours=1), click_window=timedelta(hours=24), clock_skew=timedelta(seconds=2)
)
report = join_events(folder / "events", folder / "log", spec=spec, rules=rules, n_threads=1)
print(report)
log = read_log(folder / "log", format="parquet")
assert len(log) == len(sim)
assert log["won"].sum() == sim.log["won"].sum()
assert (
    log.set_index("auction_id")["clicked"].sort_index()
    == sim.log.set_index("auction_id")["clicked"].sort_index()
).all()

# %% [markdown]
# ## Or: from a warehouse export
#
# A table with other names and units is mapped, not rewritten. Forget the auction type, and validation says that
# prices are not the bids. Prices in millionths per thousand impressions, times in seconds: say so.

# %%
export = pd.DataFrame(
    {
        "request_id": log["auction_id"],
        "event_time": log["timestamp"].astype("int64") // 1_000_000,
        "bid_micros": log["bid_cpm"] * 1e6,
        "cost_micros": log["price_cpm"] * 1e6,
        "auction": log["auction_type"],
        "is_win": log["won"],
        "is_click": log["clicked"],
        "app": log["app"],
    }
)
export.to_parquet(folder / "export.parquet")
mapped = read_log(
    folder / "export.parquet",
    format="parquet",
    columns={
        "auction_type": "auction",
        "auction_id": "request_id", "timestamp": "event_time", "bid_cpm": "bid_micros", "price_cpm": "cost_micros",
        "won": "is_win", "clicked": "is_click",
    },
    time_unit="s",
    price_unit="micros_per_mille",
    currency="USD",
)  # fmt: skip
mapped = validate(mapped, needs=["ctr", "win"]).log
assert np.allclose(mapped["bid_cpm"].sort_values(), log["bid_cpm"].sort_values())
mapped[["auction_id", "timestamp", "bid_cpm", "price_cpm", "won", "clicked", "app"]].head(3)

# %% [markdown]
# ## Train
#
# One call, the same as `bidml train`: check, split in time, fit, calibrate, certify, judge, report. It refuses with a
# reason rather than writing a model it does not trust.

# %%
config = parse_config(
    {
        "log": {"path": str(folder / "log"), "format": "parquet"},
        "features": [feature.to_json() for feature in spec.features],
        "pricing": {"cap_cpm": 30.0},
        "win": {"slope": "global"},
    }
)
run = train(config, folder / "run")
print(sorted(path.name for path in run.folder.iterdir()))
for part in ("ctr", "win"):
    scores = run.metrics[part]["model"]
    print(
        f"{part}: normalized entropy {scores['normalized_entropy']:.3f}, predicted / observed "
        f"{scores['calibration_ratio']:.2f} [{scores['calibration_low']:.2f}, {scores['calibration_high']:.2f}]"
    )

# %% [markdown]
# `report.html` has all of it on one page. Two of its plots: which feature the money comes from (no truth is needed;
# without a known market the model's own beliefs are the judge), and the win rate it was tested on.

# %%
worth = run.metrics["importance"]["features"]
plots.importance_in_money(
    list(worth),
    *(np.array([w[key] for w in worth.values()]) for key in ("loss_cpm", "loss_ci95_cpm")),
    currency="USD",
)

# %%
test = run.test
scorer = Scorer.load(run.artifact)

from bidml.features import raw_columns
from bidml.train.evaluate import predict

curve = predict(scorer, raw_columns(test, spec)).curve
bid, won = test["bid_cpm"].to_numpy(), test["won"].to_numpy()
p = curve.win_rate(bid)
exchange = test["exchange"].to_numpy()
plots.win_rate_by_exchange(
    {
        name: quantile_bins(bid[rows], won[rows], p[rows], n_bins=7)
        for name in np.unique(exchange)
        if (rows := exchange == name).any()
    },
    currency="USD",
)

# %% [markdown]
# ## Bid on a request of yours

# %%
request = sim.requests([len(sim) - 5])[0]
line = scorer.line_item(value_per_click=0.3, cap_cpm=30.0, **sim.line_item_fields(len(sim) - 5))
print(scorer.explain(request, line))
assert 0.0 <= scorer.bid(request, line) <= 30.0

# %% [markdown]
# **What to remember.** Events join without a warehouse; a table is mapped, not rewritten; features are declared once;
# the run folder is complete when it has a `model.onnx`. Then read [docs/howto.md](../../docs/howto.md): deploy,
# retrain, roll back.
