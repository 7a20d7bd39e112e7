"""From a request to a bid: bidml against the same file in onnxruntime, and against what users would write.

    python -m benchmarks.bench_score [--quick] [--json FILE] [--plot FILE]

Two bid models (bid_models.py): 300 CTR trees of depth 5, or of 63 leaves; a win curve of 2 × 100 trees of depth 5; beta
calibration; 31 raw features. 10,000 simulated OpenRTB requests of 1.5 KB rotate, with the 500 captured ones where they
are. `fresh`: decoded just before the timed call; `reused`: decoded long before, so that each lies in far memory.
`correct`: all bids within 1e-9 of onnxruntime's. Peers that are not installed are reported as such.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import warnings
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bid_models, bid_stacks, measure, score_costs, score_load, tree_peers
from bidml.contract import PRICE_INPUTS
from bidml.export import write_artifact
from bidml.score import LineItem, RawExtractor, Scorer
from bidml.score._native import Engine

PACKAGES = (
    "numpy",
    "scipy",
    "lightgbm",
    "onnxruntime",
    "treelite",
    "tl2cgen",
    "lleaves",
    "xgboost",
    "catboost",
    "ydf",
)
N_REQUESTS, N_LINES, N_BATCH = 10_000, 50, 1_000
TIMES_LARGE = 6  # so often the CTR trees of the second model: a file of 5 MB
TOLERANCE = 1e-9
LINE = {"value_per_click": 1.5, "cap_cpm": 50.0, "creative": "creative-3"}
CAPTURED = Path(__file__).resolve().parents[2] / "shared" / "data" / "openrtb_adx_captured_2016.jsonl.gz"


class Bench:
    """One bid model, its file, and every request in the forms that contenders take."""

    def __init__(self, shape: str, log: bid_models.Log, requests: list[bytes], folder: Path) -> None:
        self.shape = shape
        self.requests = requests
        self.models = bid_models.train(log, shape)
        self.path = folder / f"{shape.replace(' ', '-')}.onnx"
        self.blueprint = self.models.blueprint()
        write_artifact(self.blueprint, self.path)
        self.scorer = Scorer.load(self.path)
        self.line = self.scorer.line_item(**LINE)
        self.decoded = [json.loads(request) for request in requests]
        self.columns = self._columns()
        self.session = tree_peers.session_of(self.path.read_bytes())
        feed = {
            name: np.asarray(column, dtype=_dtype(name)).reshape(-1, 1)
            for name, column in self.columns.items()
        }
        self.feeds = [
            {name: column[i : i + 1] for name, column in feed.items()} for i in range(len(requests))
        ]
        self.batch_feed = {name: column[:N_BATCH] for name, column in feed.items()}
        self.expected = self.session.run(["bid_cpm"], feed)[0].ravel()

    def _columns(self) -> dict[str, list[Any]]:
        """The raw features of every request, and the price inputs of the line item."""
        spec = self.blueprint.spec
        columns: dict[str, list[Any]] = RawExtractor(spec).columns(
            self.decoded, [{"creative": LINE["creative"]}] * len(self.decoded)
        )
        floors = [float(request["imp"][0].get("bidfloor") or 0.0) for request in self.decoded]
        prices = (LINE["value_per_click"], floors, LINE["cap_cpm"], 1.0, 1.0)
        n = len(floors)
        return columns | {
            name: value if isinstance(value, list) else [value] * n
            for name, value in zip(PRICE_INPUTS, prices, strict=True)
        }

    def contender(
        self, name: str, call: Callable[[Any], Any], rows: Any, *, prepare: Callable[[Any], Any] | None = None
    ) -> measure.Contender:
        """One more way to bid, with its verdict."""
        n_checked = min(len(rows), 1_500)
        made = [rows[i] if prepare is None else prepare(rows[i]) for i in range(n_checked)]
        found = np.array([float(np.asarray(call(row)).reshape(-1)[0]) for row in made])
        wrong = np.abs(found - self.expected[:n_checked]) > TOLERANCE * np.maximum(
            self.expected[:n_checked], 1.0
        )
        note = "" if not wrong.any() else f"{int(wrong.sum())} of {n_checked} bids differ"
        return measure.Contender(
            name, self.shape, call, rows, correct=not wrong.any(), note=note, prepare=prepare
        )

    def contenders(self, *, peers: bool) -> tuple[list[measure.Contender], dict[str, str]]:
        """All ways from one request to one bid; and the peers that are absent with the reason."""
        scorer, line = self.scorer, self.line
        found = [
            self.contender(
                "bidml bid, fresh",
                lambda request: scorer.bid(request, line),
                self.requests,
                prepare=json.loads,
            ),
            self.contender("bidml bid, reused", lambda request: scorer.bid(request, line), self.decoded),
            self.contender("bidml bid_json", lambda request: scorer.bid_json(request, line), self.requests),
            self.contender(
                "onnxruntime, features ready", lambda feed: self.session.run(["bid_cpm"], feed)[0], self.feeds
            ),
            self.contender("onnxruntime, features in Python", self._onnxruntime_from_request(), self.decoded),
        ]
        stacks: dict[str, tuple[Callable[[Any], tree_peers.Peer], Callable[[float, float, float], float]]] = {
            "Python, SingleRowFast, Newton": (
                tree_peers.lightgbm_single_row_fast,
                bid_stacks.optimum_by_newton,
            ),
            "Python, LightGBM predict, SciPy": (tree_peers.lightgbm_predict, bid_stacks.optimum_by_scipy),
        }
        if peers:
            newton = bid_stacks.optimum_by_newton
            stacks["Python, treelite, Newton"] = (tree_peers.treelite_gtil, newton)
            stacks["Python, tl2cgen, Newton"] = (tree_peers.tl2cgen_compiled, newton)
            stacks["Python, lleaves, Newton"] = (tree_peers.lleaves_compiled, newton)
        absent = {}
        for name, (peer_of, optimum) in stacks.items():
            try:
                call = bid_stacks.stack(self.models, peer_of, optimum, LINE)
            except ImportError as error:
                absent[name] = f"not installed ({error.name})"
                continue
            except Exception as error:  # that a peer cannot build a model is a result
                absent[name] = f"failed: {type(error).__name__}: {str(error)[:200]}"
                continue
            found.append(self.contender(name, call, self.decoded))
        return found, absent

    def _onnxruntime_from_request(self) -> Callable[[bid_stacks.Request], Any]:
        session = self.session
        prices = {name: np.array([[LINE.get(name, 1.0)]], dtype=np.float64) for name in PRICE_INPUTS}

        def call(request: bid_stacks.Request) -> Any:
            features = bid_stacks.raw_features(request, LINE)
            feed = {name: np.array([[value]], dtype=_dtype(name)) for name, value in features.items()}
            floor = np.array([[request["imp"][0].get("bidfloor") or 0.0]], dtype=np.float64)
            return session.run(["bid_cpm"], feed | prices | {"floor_cpm": floor})[0]

        return call

    def trees(self) -> list[measure.Contender]:
        """The CTR trees alone: an encoded vector in, a margin out."""
        group = f"trees alone: {self.shape}"
        x = bid_models.encoded(self._raw_arrays(), self.models.clicks, slice(0, len(self.requests)))
        expected = self.models.ctr.predict(x, raw_score=True, num_threads=1)
        columns = tuple(bid_models.Column(f"x{i}") for i in range(x.shape[1]))
        head = bid_models.head_of_booster(self.models.ctr, columns)
        engine = Engine([head], {f"x{i}": (False, i) for i in range(x.shape[1])}, x.shape[1], 0, "best")
        contenders = []
        for name, peer in (
            (
                "bidml score_vector",
                tree_peers.Peer(engine.score_vector, lambda row: array("d", row.tolist())),
            ),
            ("LightGBM SingleRowFast (ctypes)", tree_peers.lightgbm_single_row_fast(self.models.ctr)),
            ("onnxruntime run", tree_peers.onnxruntime_run(head, x.shape[1])),
        ):
            rows = [peer.prepare(row) for row in x]
            found = np.array([float(np.asarray(peer.call(row)).reshape(-1)[0]) for row in rows[:1_500]])
            correct = bool(
                (np.abs(found - expected[:1_500]) <= 1e-12 * np.maximum(np.abs(expected[:1_500]), 1.0)).all()
            )
            contenders.append(measure.Contender(name, group, peer.call, rows, correct=correct))
        self._keep = x  # addresses of its rows are in use
        return contenders

    def _raw_arrays(self) -> dict[str, Any]:
        return {name: np.array(column, dtype=object) for name, column in self.columns.items()}

    def best(self) -> measure.Contender:
        """The best of 50 line items, per request."""
        lines = many_lines(self.scorer)
        scorer = self.scorer
        return measure.Contender(
            f"bidml best of {N_LINES}", self.shape, lambda request: scorer.best(request, lines), self.requests,
            correct=self._best_is_right(lines), prepare=json.loads,
        )  # fmt: skip

    def _best_is_right(self, lines: list[LineItem]) -> bool:
        scorer = self.scorer
        for request in self.decoded[:20]:
            at, bid_cpm = scorer.best(request, lines)
            bids = [scorer.explain(request, line) for line in lines]
            most = max(range(len(lines)), key=lambda i: bids[i].expected_surplus_cpm)
            if bids[most].bid_cpm > 0.0 and (at, bid_cpm) != (most, bids[most].bid_cpm):
                return False
        return True

    def batches(self, *, peers: bool, training: Any, seconds: float) -> dict[str, float | str]:
        """ns per row of 1,000-row calls: the whole bid, then the CTR trees alone by peers."""
        out = array("d", bytes(8 * N_BATCH))
        columns: dict[str, Any] = {}
        for name, column in self.columns.items():
            is_number = isinstance(column[0], float)
            columns[name] = array("d", column[:N_BATCH]) if is_number else tuple(column[:N_BATCH])
        calls: dict[str, Callable[[], Any]] = {
            "bidml bid_many": lambda: self.scorer.bid_many(columns, out=out),
            "onnxruntime, whole file": lambda: self.session.run(["bid_cpm"], self.batch_feed),
        }
        x = np.ascontiguousarray(self._keep[:N_BATCH])
        of_trees: dict[str, Callable[[], tree_peers.Peer]] = {
            "trees: LightGBM predict": lambda: tree_peers.lightgbm_predict(self.models.ctr)
        }
        if peers:
            shape = bid_models.SHAPES[self.shape]
            of_trees |= {
                "trees: treelite": lambda: tree_peers.treelite_gtil(self.models.ctr),
                "trees: tl2cgen": lambda: tree_peers.tl2cgen_compiled(self.models.ctr),
                "trees: lleaves": lambda: tree_peers.lleaves_compiled(self.models.ctr),
                "trees: XGBoost (own model)": lambda: tree_peers.xgboost_own(*training, shape),
                "trees: CatBoost (own model)": lambda: tree_peers.catboost_own(*training, shape),
                "trees: YDF (own model)": lambda: tree_peers.ydf_own(*training, shape),
            }
        found: dict[str, float | str] = {}
        for name, make in of_trees.items():
            try:
                peer = make()
                assert peer.batch is not None
                calls[name] = partial(peer.call, peer.batch(x))
            except ImportError as error:
                found[name] = f"not installed ({error.name})"
            except Exception as error:  # a result, as above
                found[name] = f"failed: {type(error).__name__}: {str(error)[:200]}"
        for name, call in calls.items():
            found[name] = measure.throughput_ns(call, N_BATCH, seconds=seconds)
        assert np.allclose(np.array(out), self.expected[:N_BATCH], rtol=TOLERANCE)
        return found


def many_lines(scorer: Scorer) -> list[LineItem]:
    return [
        scorer.line_item(value_per_click=0.5 + i / 50, cap_cpm=50.0, creative=f"creative-{i}")
        for i in range(N_LINES)
    ]


def _dtype(name: str) -> Any:
    return object if name in bid_models.CATEGORIES else np.float64


def requests_of(log: bid_models.Log, rng: np.random.Generator) -> tuple[list[bytes], int]:
    """10,000 simulated requests with the captured ones among them, and how many of those there are."""
    rows = slice(bid_models.N_TRAIN, bid_models.N_TRAIN + N_REQUESTS)
    found = bid_models.requests_of({name: column[rows] for name, column in log.columns.items()}, rng)
    captured = []
    if CAPTURED.exists():
        with gzip.open(CAPTURED) as lines:
            captured = [line.strip() for line in lines]
    for i, line in enumerate(captured):
        found.insert(N_BATCH + 20 * i, line)
    return found, len(captured)


def bench(*, quick: bool) -> dict[str, Any]:
    """Runs it; the document that --json writes."""
    rng = np.random.default_rng(1)
    log = bid_models.simulated_log(bid_models.N_TRAIN + N_REQUESTS, rng)
    requests, n_captured = requests_of(log, rng)
    document: dict[str, Any] = {
        "machine": measure.machine(PACKAGES),
        "unit": "ns per call, net of the null call; one thread, requests rotate",
        "n_requests": len(requests),
        "n_captured": n_captured,
        "results": [],
        "absent": {},
        "batch_ns_per_row": {},
        "paths": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape in bid_models.SHAPES:
            it = Bench(shape, log, requests, folder)
            contenders, absent = it.contenders(peers=not quick)
            document["absent"] |= absent
            null = measure.null_contender(requests)
            measure.run([null, *contenders], seconds=3.5 if quick else 25.0)
            trees = it.trees()
            measure.run([null, *trees], seconds=1.5 if quick else 8.0)
            best = it.best()
            measure.run([null, best], seconds=0.7 if quick else 4.0)
            document["results"] += [measure.summary(c, null) for c in (*contenders, best, *trees)]
            training = (it._keep[: bid_models.N_TRAIN], log.clicked[: len(it._keep)])
            if not quick:
                rows = slice(0, bid_models.N_TRAIN)
                training = bid_models.encoded(log.columns, it.models.clicks, rows), log.clicked[rows]
            document["batch_ns_per_row"][shape] = it.batches(
                peers=not quick, training=training, seconds=0.4 if quick else 1.5
            )
            document["paths"][shape] = it.scorer.info()["engine"]["heads"]
            if shape == next(iter(bid_models.SHAPES)):
                document["under_load"] = score_load.under_load(
                    it.scorer, it.line, it.requests, 1.0 if quick else 5.0
                )
                document["threads"] = score_load.two_threads(it, 0.5 if quick else 2.0)
                path = it.path
        large = None if quick else bid_models.repeated(it.blueprint, TIMES_LARGE)
        document["costs"] = score_costs.costs(path, folder, large=large, log=log)
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no optional peers, short turns, under 50 s")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--plot", type=Path, help="write the plot there (SVG)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    document = bench(quick=arguments.quick)
    from benchmarks import score_report

    print(score_report.markdown(document))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))
    if arguments.plot:
        score_report.plot(document, arguments.plot)


if __name__ == "__main__":
    main()
