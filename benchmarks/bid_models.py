"""Bid models and requests of the end-to-end benchmark: a synthetic log, LightGBM on it, one artifact per shape.

31 raw features, half of them text with 3 to 8,000 values each, heavy-tailed; OpenRTB 2.6 requests of 1 to 2 KB that
hold, besides what the models read, what real requests hold.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Lookup, Trees, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.lightgbm_trees import head_of_booster

Columns = Mapping[str, NDArray[Any]]

CATEGORIES: Final = {  # name: (source, how many values)
    "country": ("device.geo.country", 40),
    "region": ("device.geo.region", 400),
    "city": ("device.geo.city", 3_000),
    "make": ("device.make", 40),
    "model": ("device.model", 1_500),
    "os": ("device.os", 4),
    "osv": ("device.osv", 60),
    "language": ("device.language", 30),
    "carrier": ("device.carrier", 80),
    "bundle": ("app.bundle", 8_000),
    "publisher": ("app.publisher.id", 1_500),
    "tagid": ("imp.tagid", 5_000),
    "banner_size": ("derived.banner_size", 6),
    "exchange": ("ext.exchange", 8),
    "gender": ("user.gender", 3),
    "creative": ("line_item.creative", 400),
}
NUMBERS: Final = {
    "hour": "derived.hour_of_day",
    "weekday": "derived.weekday",
    "width": "device.w",
    "height": "device.h",
    "pxratio": "device.pxratio",
    "lat": "device.geo.lat",
    "lon": "device.geo.lon",
    "devicetype": "device.devicetype",
    "connection": "device.connectiontype",
    "bidfloor": "imp.bidfloor",
    "yob": "user.yob",
    "instl": "imp.instl",
    "pos": "imp.banner.pos",
    "session_depth": "ext.session_depth",
    "viewability": "imp.ext.viewability",
}
SIZES: Final = ("320x50", "300x250", "728x90", "320x480", "160x600", "970x250")
SHAPES: Final[dict[str, dict[str, int]]] = {  # of the CTR model
    "300 trees of depth 5": {"n_trees": 300, "num_leaves": 32, "max_depth": 5},
    "300 trees of 63 leaves": {"n_trees": 300, "num_leaves": 63},
}
WIN_SHAPE: Final = {"n_trees": 100, "num_leaves": 32, "max_depth": 5}
N_TRAIN: Final = 60_000

# What every request also holds and no model reads.
_UNREAD: Final = {
    "bcat": ["IAB7-39", "IAB8-18", "IAB8-5", "IAB9-9", "IAB25-3", "IAB26"],
    "badv": ["blocked-one.example", "blocked-two.example"],
    "tmax": 250,
    "source": {
        "fd": 1,
        "ext": {"schain": {"complete": 1, "ver": "1.0", "nodes": [{"asi": "ssp.example", "hp": 1}]}},
    },
    "regs": {"coppa": 0, "ext": {"gdpr": 0, "us_privacy": "1YNN"}},
}


def spec() -> FeatureSpec:
    """The 31 features."""
    categories = [Feature(name, FeatureKind.CATEGORY, source) for name, (source, _) in CATEGORIES.items()]
    numbers = [Feature(name, FeatureKind.NUMBER, source) for name, source in NUMBERS.items()]
    return FeatureSpec((*categories, *numbers))


@dataclass(frozen=True)
class Log:
    """Raw features by name, (n,) each, and what happened: `clicked` 0/1, `log_price` and `log_slope` of the market."""

    columns: Columns
    clicked: NDArray[np.float64]
    log_price: NDArray[np.float64]
    log_slope: NDArray[np.float64]


def simulated_log(n_rows: int, rng: np.random.Generator) -> Log:
    """Auctions in which clicks and prices depend on texts, numbers and some of their products."""
    columns: dict[str, NDArray[Any]] = {}
    logit, price, slope = np.full(n_rows, -4.0), np.full(n_rows, 0.3), np.zeros(n_rows)
    for name, (_, n_values) in CATEGORIES.items():
        code = np.minimum((rng.pareto(1.1, n_rows) * n_values / 20).astype(int), n_values - 1)
        logit += (rng.normal(size=n_values) * 0.3)[code]
        price += (rng.normal(size=n_values) * 0.15)[code]
        slope += (rng.normal(size=n_values) * 0.05)[code]
        columns[name] = _texts(name, n_values)[code]
    hour, yob = rng.integers(0, 24, n_rows), rng.integers(1950, 2008, n_rows).astype(float)
    yob[rng.random(n_rows) < 0.5] = np.nan
    columns |= {
        "hour": hour.astype(float),
        "weekday": rng.integers(0, 7, n_rows).astype(float),
        "width": rng.choice([320, 360, 375, 390, 414, 768, 1080], n_rows).astype(float),
        "height": rng.choice([568, 640, 667, 736, 844, 1024, 2400], n_rows).astype(float),
        "pxratio": rng.choice([1.0, 1.5, 2.0, 2.625, 3.0], n_rows),
        "lat": (rng.normal(38, 6, n_rows)).round(4),
        "lon": (rng.normal(-95, 15, n_rows)).round(4),
        "devicetype": rng.choice([1, 4, 5], n_rows).astype(float),
        "connection": rng.integers(0, 7, n_rows).astype(float),
        "bidfloor": np.exp(rng.normal(-1.5, 0.8, n_rows)).round(3),
        "yob": yob,
        "instl": (rng.random(n_rows) < 0.2).astype(float),
        "pos": rng.choice([0, 1, 3], n_rows).astype(float),
        "session_depth": np.minimum(rng.geometric(0.1, n_rows), 100).astype(float),
        "viewability": rng.beta(4, 3, n_rows).round(3),
    }
    view, depth = columns["viewability"], columns["session_depth"]
    logit += 1.5 * view - 0.02 * depth + np.sin(hour / 4.0) * (view - 0.5) + 0.3 * columns["instl"]
    logit += 0.3 * np.tanh((np.nan_to_num(yob, nan=1975.0) - 1980) / 10) * (columns["connection"] == 2)
    price += (
        0.5 * view
        + 0.4 * columns["instl"]
        + 0.1 * np.cos(hour / 4.0)
        + 0.3 * np.log(columns["bidfloor"] + 0.1)
    )
    slope += 0.6 + 0.2 * columns["instl"] - 0.2 * view
    clicked = (rng.random(n_rows) < 1.0 / (1.0 + np.exp(-logit))).astype(float)
    noise = rng.normal(size=n_rows)
    return Log(columns, clicked, price + 0.3 * noise, slope + 0.2 * rng.normal(size=n_rows))


def _texts(name: str, n_values: int) -> NDArray[Any]:
    """The values of a category, as they look in traffic, by rank."""
    ranks = range(n_values)
    texts = {
        "country": lambda i: chr(65 + i % 26) + chr(65 + i // 26) + "A",
        "city": lambda i: ("San ", "New ", "Saint-", "Żory ", "")[i % 5] + f"Town{i * 7919 % 10007}",
        "model": lambda i: f"SM-{'AGJNS'[i % 5]}{i * 613 % 9973}{'FUBN'[i % 4]}",
        "bundle": lambda i: f"com.{('games', 'news', 'tools', 'video')[i % 4]}.studio{i * 31 % 977}.app{i}",
        "publisher": lambda i: f"{(i * 2654435761) % 2**32:08x}{i:04x}",
        "tagid": lambda i: f"/{i * 37 % 4099}/placement-{i}",
        "banner_size": lambda i: SIZES[i],
        "os": lambda i: ("android", "ios", "tizen", "other")[i],
        "osv": lambda i: f"{4 + i % 14}.{i % 7}.{i % 3}",
        "gender": lambda i: "MFO"[i],
    }.get(name, lambda i: f"{name}-{i}")
    return np.array([texts(i) for i in ranks], dtype=object)


# ---- requests ----------------------------------------------------------------------------------------------------


def _compact(request: dict[str, Any]) -> bytes:
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def requests_of(columns: Columns, rng: np.random.Generator) -> list[bytes]:
    """One OpenRTB request per row, as JSON; extraction gives the row's request features back."""
    names = [name for name in columns if name != "creative"]
    cells = [columns[name].tolist() for name in names]
    ids = rng.integers(0, 2**63, (len(cells[0]), 2)).tolist()
    return [
        _compact(_request(dict(zip(names, row, strict=True)), *of_row))
        for row, of_row in zip(zip(*cells, strict=True), ids, strict=True)
    ]


def _request(row: dict[str, Any], first_id: int, second_id: int) -> dict[str, Any]:
    width, height = map(int, row["banner_size"].split("x"))
    day = 19_723 + (int(row["weekday"]) - 0) % 7  # 19723 is a Monday
    user: dict[str, Any] = {
        "id": f"{second_id:016x}",
        "gender": row["gender"],
        "keywords": "sports,travel,music",
    }
    if row["yob"] == row["yob"]:
        user["yob"] = int(row["yob"])
    return {
        "id": f"{first_id:016x}-{second_id:016x}",
        "at": 1,
        "cur": ["USD"],
        "imp": [
            {
                "id": "1",
                "tagid": row["tagid"],
                "instl": int(row["instl"]),
                "secure": 1,
                "bidfloor": row["bidfloor"],
                "bidfloorcur": "USD",
                "displaymanager": "GoogleMobileAds",
                "banner": {"w": width, "h": height, "pos": int(row["pos"]), "api": [3, 5, 6], "btype": [4]},
                "ext": {"viewability": row["viewability"]},
            }
        ],
        "app": {
            "id": f"{first_id % 99991}",
            "name": f"App {row['bundle'][-8:]}",
            "bundle": row["bundle"],
            "cat": ["IAB1", "IAB9-30"],
            "ver": "4.12.1",
            "storeurl": f"https://play.google.com/store/apps/details?id={row['bundle']}",
            "publisher": {"id": row["publisher"], "name": "A \"Quoted\" Publisher"},
        },
        "device": {
            "ua": f"Mozilla/5.0 (Linux; Android {row['osv']}; {row['model']}) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Version/4.0 Chrome/119.0.6045.66 Mobile Safari/537.36",
            "ip": "203.0.113.0",
            "geo": {
                "lat": row["lat"],
                "lon": row["lon"],
                "type": 2,
                "country": row["country"],
                "region": row["region"],
                "city": row["city"],
                "zip": "94105",
            },
            "make": row["make"],
            "model": row["model"],
            "os": row["os"],
            "osv": row["osv"],
            "language": row["language"],
            "carrier": row["carrier"],
            "w": int(row["width"]),
            "h": int(row["height"]),
            "pxratio": row["pxratio"],
            "js": 1,
            "devicetype": int(row["devicetype"]),
            "connectiontype": int(row["connection"]),
            "ifa": f"{second_id:08x}-41a2-4b3c-9d0e-{first_id:012x}",
        },
        "user": user,
        "ext": {
            "exchange": row["exchange"],
            "session_depth": int(row["session_depth"]),
            "timestamp": (day * 24 + int(row["hour"])) * 3_600_000 + first_id % 3_600_000,
        },
        **_UNREAD,
    }  # fmt: skip


# ---- models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Models:
    """What a user without bidml holds: boosters over encoded columns, and the encoding."""

    ctr: lgb.Booster
    location: lgb.Booster
    log_slope: lgb.Booster
    clicks: tuple[Column, ...]  # of `ctr`
    prices: tuple[Column, ...]  # of the others
    calibration: Calibration
    win: WinBlueprint

    def blueprint(self) -> Blueprint:
        """The same as one bid model."""
        ctr = CtrBlueprint(head_of_booster(self.ctr, self.clicks), self.calibration)
        return Blueprint(spec(), ctr, self.win, "USD")


def train(log: Log, shape: str) -> Models:
    """The bid model whose CTR part is `SHAPES[shape]`, on the first `N_TRAIN` rows of `log`."""
    rows = slice(0, N_TRAIN)
    clicks = columns_of(log.columns, log.clicked, rows)
    prices = columns_of(log.columns, log.log_price, rows)
    x_clicks, x_prices = encoded(log.columns, clicks, rows), encoded(log.columns, prices, rows)
    ctr = _booster(x_clicks, log.clicked[rows], SHAPES[shape], "binary")
    # β: log-odds of winning at 1 CPM, about −slope · ln price
    location = _booster(x_prices, -np.exp(log.log_slope[rows]) * log.log_price[rows], WIN_SHAPE, "regression")
    log_slope = _booster(x_prices, log.log_slope[rows], WIN_SHAPE, "regression")
    win = WinBlueprint(
        head_of_booster(location, prices, raw=True),
        head_of_booster(log_slope, prices, raw=True),
        reference_log_bid_cpm=0.0,
        slope_scale=1.1,
        logit_shift=0.05,
        gamma=1.0,
    )
    return Models(ctr, location, log_slope, clicks, prices, Calibration(0.98, 1.3, -0.05), win)


def repeated(blueprint: Blueprint, times: int) -> Blueprint:
    """A larger model that says the same: its CTR trees several times over, and the mean of them.

    Training one of that size takes longer than a benchmark, and its columns would have no more thresholds: LightGBM
    puts them at the ends of 255 bins.
    """
    assert blueprint.ctr is not None
    trees = blueprint.ctr.head.trees
    assert trees is not None
    n, n_leaves = trees.n_nodes, len(trees.leaf)
    parts: dict[str, array[Any]] = {}
    for name in trees.__dataclass_fields__:
        values = getattr(trees, name)
        parts[name] = array(values.typecode)
        for i in range(times):
            if name == "roots":
                parts[name].extend(root + i * n for root in values)
            elif name in ("true_child", "false_child"):
                sides = trees.true_is_leaf if name == "true_child" else trees.false_is_leaf
                steps = (n, n_leaves)
                parts[name].extend(x + i * steps[leaf] for x, leaf in zip(values, sides, strict=True))
            else:
                parts[name].extend(values)
    head = replace(blueprint.ctr.head, trees=Trees(**parts), divisor=blueprint.ctr.head.divisor * times)
    return replace(blueprint, ctr=replace(blueprint.ctr, head=head))


def columns_of(columns: Columns, target: NDArray[np.float64], rows: slice) -> tuple[Column, ...]:
    """Texts as smoothed means of `target`, numbers as they are."""
    prior, weight = float(target[rows].mean()), 20.0
    found = []
    for name in CATEGORIES:
        texts, codes = np.unique(columns[name][rows].astype(str), return_inverse=True)
        n = np.bincount(codes)
        means = (np.bincount(codes, target[rows]) + prior * weight) / (n + weight)
        by_key = dict(zip(texts.tolist(), means.tolist(), strict=True))
        keys = tuple(sorted(by_key, key=str.encode))
        found.append(Column(name, Lookup(name, keys, array("d", [by_key[key] for key in keys]), prior)))
    return (*found, *(Column(name) for name in NUMBERS))


def encoded(columns: Columns, of: tuple[Column, ...], rows: slice) -> NDArray[np.float64]:
    """(n_rows, n_columns) what the trees see."""
    parts = []
    for column in of:
        cells = columns[column.feature][rows]
        if column.lookup is not None:
            values = dict(zip(column.lookup.keys, column.lookup.values, strict=True))
            cells = [values.get(cell, column.lookup.default) for cell in cells]
        parts.append(np.asarray(cells, dtype=np.float64))
    return np.ascontiguousarray(np.stack(parts, axis=1))


def _booster(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int], objective: str
) -> lgb.Booster:
    parameters = {"objective": objective, "verbose": -1, "num_threads": 2, "learning_rate": 0.05, "seed": 1}
    of_shape = {name: value for name, value in shape.items() if name != "n_trees"}
    return lgb.train(parameters | of_shape, lgb.Dataset(x, y), shape["n_trees"])
