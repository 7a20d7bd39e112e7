"""What a bidder without bidml runs per request: features in Python, three predictions, calibration, an optimal bid.

Written as a careful user would: compiled getters, one reused vector, the price by Newton in plain Python or by SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.bid_models import CATEGORIES, NUMBERS, Models
from benchmarks.tree_peers import Peer
from bidml.blueprint import Calibration, Column, WinBlueprint

Request = dict[str, Any]


def raw_features(request: Request, line: Mapping[str, str]) -> dict[str, Any]:
    """The 31 raw features by name: text, "" where missing; float, NaN where missing."""
    imp = request["imp"][0]
    device, app, user, ext = (request.get(key) or {} for key in ("device", "app", "user", "ext"))
    geo, banner = device.get("geo") or {}, imp.get("banner") or {}
    stamp = ext.get("timestamp")
    when = datetime.fromtimestamp(stamp / 1000.0, UTC) if stamp is not None else datetime.now(UTC)
    found: dict[str, Any] = {
        "country": geo.get("country"),
        "region": geo.get("region"),
        "city": geo.get("city"),
        "make": device.get("make"),
        "model": device.get("model"),
        "os": device.get("os"),
        "osv": device.get("osv"),
        "language": device.get("language"),
        "carrier": device.get("carrier"),
        "bundle": app.get("bundle"),
        "publisher": (app.get("publisher") or {}).get("id"),
        "tagid": imp.get("tagid"),
        "banner_size": f"{banner['w']}x{banner['h']}" if banner.get("w") and banner.get("h") else "",
        "exchange": ext.get("exchange"),
        "gender": user.get("gender"),
        "creative": line["creative"],
        "hour": when.hour,
        "weekday": when.weekday(),
        "width": device.get("w"),
        "height": device.get("h"),
        "pxratio": device.get("pxratio"),
        "lat": geo.get("lat"),
        "lon": geo.get("lon"),
        "devicetype": device.get("devicetype"),
        "connection": device.get("connectiontype"),
        "bidfloor": imp.get("bidfloor"),
        "yob": user.get("yob"),
        "instl": imp.get("instl"),
        "pos": banner.get("pos"),
        "session_depth": ext.get("session_depth"),
        "viewability": (imp.get("ext") or {}).get("viewability"),
    }
    for name in CATEGORIES:
        value = found[name]
        found[name] = "" if value is None else value if type(value) is str else str(value)
    for name in NUMBERS:
        value = found[name]
        found[name] = math.nan if value is None else float(value)
    return found


def encoder_of(columns: Sequence[Column]) -> Callable[[Mapping[str, Any]], np.ndarray[Any, Any]]:
    """Raw features to the vector that the boosters read."""
    lookups = [
        (
            column.feature,
            dict(zip(column.lookup.keys, column.lookup.values, strict=True)),
            column.lookup.default,
        )
        for column in columns
        if column.lookup is not None
    ]
    numbers = [column.feature for column in columns if column.lookup is None]

    def encode(features: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        row = [known.get(features[name], default) for name, known, default in lookups]
        row += [features[name] for name in numbers]
        return np.array(row)

    return encode


def calibrated(c: Calibration, s: float) -> float:
    """Beta calibration of log-odds."""
    tail = math.log1p(math.exp(-abs(s)))
    return c.positive * -(max(-s, 0.0) + tail) - c.negative * -(max(s, 0.0) + tail) + c.shift


def curve_of(win: WinBlueprint, beta: float, a: float) -> tuple[float, float]:
    """(location ln CPM, shape) of the win curve from its two margins."""
    k = win.slope_scale * math.exp(min(max(a, -3.0), 4.0))
    return win.reference_log_bid_cpm - (
        win.slope_scale * min(max(beta, -60.0), 60.0) + win.logit_shift
    ) / k, k


def optimum_by_newton(v: float, m: float, k: float) -> float:
    """argmax (v − b) σ(k (ln b − m)): Newton in log-odds, six steps."""
    d = k * (math.log(k * v) - m) - (k + 1.0) * math.log1p(k)
    y = d / (1.0 + k) if d > 0.0 else d
    for _ in range(8):
        e = math.exp(-abs(y))
        sigma = (1.0 if y >= 0.0 else e) / (1.0 + e)
        y -= (y + k * (max(y, 0.0) + math.log1p(e)) - d) / (1.0 + k * sigma)
    return math.exp(m + (y + math.log1p(k)) / k)


def optimum_by_scipy(v: float, m: float, k: float) -> float:
    """The same by SciPy's bracketing root finder on the first-order condition in ln b."""
    from scipy.optimize import brentq

    def condition(ln_b: float) -> float:
        return (
            ln_b
            - math.log(v - math.exp(ln_b))
            - math.log(k)
            + math.log1p(math.exp(min(k * (ln_b - m), 700.0)))
        )

    high = math.log(v) - 1e-15
    return math.exp(brentq(condition, high - 60.0, math.log(v * (1.0 - 1e-12)), xtol=1e-14))


def stack(
    models: Models,
    peer_of: Callable[[Any], Peer],
    optimum: Callable[[float, float, float], float],
    line: Mapping[str, Any],
) -> Callable[[Request], float]:
    """A function from a decoded request to a bid in CPM for `line`: value_per_click, cap_cpm, creative."""
    ctr, location, log_slope = (
        peer_of(booster) for booster in (models.ctr, models.location, models.log_slope)
    )
    encode_clicks, encode_prices = encoder_of(models.clicks), encoder_of(models.prices)
    value_per_click, cap_cpm = line["value_per_click"], line["cap_cpm"]

    def score(peer: Peer, row: Any) -> float:
        found = peer.call(peer.prepare(row))
        return found if type(found) is float else float(np.asarray(found).reshape(-1)[0])

    def bid(request: Request) -> float:
        features = raw_features(request, line)
        clicks, prices = encode_clicks(features), encode_prices(features)
        s = calibrated(models.calibration, score(ctr, clicks))
        v = 1000.0 * value_per_click / (1.0 + math.exp(-s))
        m, k = curve_of(models.win, score(location, prices), score(log_slope, prices))
        floor = request["imp"][0].get("bidfloor") or 0.0
        if v <= floor or cap_cpm < floor:
            return 0.0
        return min(max(optimum(v, m, k), floor), cap_cpm, v)

    return bid
