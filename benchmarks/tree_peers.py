"""The peers: each as a function of one encoded row to one raw score, as its own users would write it.

A peer that is not installed raises ImportError; the benchmark then reports it as such.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bidml.blueprint import Head
from bidml.contract import IR_VERSION, ML_OPSET, OPSET

Row = NDArray[np.float64]  # (n_columns,)


@dataclass(frozen=True)
class Peer:
    """`call(prepare(row))` is the raw score; a benchmark may prepare outside the timing. `call` takes a batch where
    `batch` says how its rows, (n, n_columns), are prepared.
    """

    call: Callable[[Any], Any]
    prepare: Callable[[Row], Any]
    batch: Callable[[NDArray[np.float64]], Any] | None = None


def _as_batch(row: Row) -> NDArray[np.float64]:
    return row.reshape(1, -1)


def _same(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows


def lightgbm_predict(booster: lgb.Booster) -> Peer:
    """Booster.predict, raw score. Its thread count is the booster's: an argument would be parsed at each call."""
    booster.params["num_threads"] = 1
    return Peer(lambda rows: booster.predict(rows, raw_score=True), _as_batch, _same)


class SingleRowFast:
    """LightGBM's fastest call for one row, through ctypes: the library's pre-configured predictor."""

    C_API_DTYPE_FLOAT64, C_API_PREDICT_RAW_SCORE = 1, 1

    def __init__(self, booster: lgb.Booster) -> None:
        library = ctypes.CDLL(str(next(Path(lgb.__file__).parent.rglob("lib_lightgbm.so"))))
        self._keep_alive = booster
        self._config = ctypes.c_void_p()
        failed = library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, self.C_API_PREDICT_RAW_SCORE, 0, -1, self.C_API_DTYPE_FLOAT64, booster.num_feature(),
            b"num_threads=1", ctypes.byref(self._config),
        )  # fmt: skip
        assert failed == 0
        self._length, self._out = ctypes.c_int64(), (ctypes.c_double * 1)()
        self._arguments = ctypes.byref(self._length), self._out
        self._predict = library.LGBM_BoosterPredictForMatSingleRowFast
        self._predict.argtypes = [ctypes.c_void_p] * 4

    def __call__(self, address: int) -> float:
        length, out = self._arguments
        self._predict(self._config, address, length, out)
        return out[0]


def lightgbm_single_row_fast(booster: lgb.Booster) -> Peer:
    """Rows are addresses: even the pointer conversion can be done beforehand."""
    return Peer(SingleRowFast(booster), lambda row: row.ctypes.data)


def onnx_trees(head: Head, n_columns: int | None = None) -> bytes:
    """The trees as one ONNX `TreeEnsemble` in double: input x [N, n_columns], output margin [N, 1].

    The features of the head are x0, x1, ...
    """
    trees = head.trees
    assert trees is not None
    n_nodes, n_leaves = len(trees.column), len(trees.leaf)
    features = [int(column.feature.removeprefix("x")) for column in head.columns]
    n_columns = max(features) + 1 if n_columns is None else n_columns
    node = helper.make_node(
        "TreeEnsemble", ["x"], ["margin"], domain="ai.onnx.ml",
        n_targets=1, aggregate_function=1, post_transform=0,
        tree_roots=list(trees.roots),
        nodes_featureids=[features[column] for column in trees.column],
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [n_nodes], list(trees.mode)),
        nodes_splits=helper.make_tensor("splits", TensorProto.DOUBLE, [n_nodes], list(trees.threshold)),
        nodes_truenodeids=list(trees.true_child),
        nodes_trueleafs=list(trees.true_is_leaf),
        nodes_falsenodeids=list(trees.false_child),
        nodes_falseleafs=list(trees.false_is_leaf),
        nodes_missing_value_tracks_true=list(trees.missing_true),
        leaf_targetids=[0] * n_leaves,
        leaf_weights=helper.make_tensor("weights", TensorProto.DOUBLE, [n_leaves], list(trees.leaf)),
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, n_columns])],
        [helper.make_tensor_value_info("margin", TensorProto.DOUBLE, [None, 1])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def session_of(model: bytes) -> Any:
    """An onnxruntime session of one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnxruntime_run(head: Head, n_columns: int) -> Peer:
    """InferenceSession.run, one thread."""
    session = session_of(onnx_trees(head, n_columns))
    return Peer(
        lambda feed: session.run(None, feed)[0], lambda row: {"x": _as_batch(row)}, lambda rows: {"x": rows}
    )


def onnxruntime_bound(head: Head, n_columns: int) -> Peer:
    """The same with IOBinding: the input is updated in place, nothing is allocated by Python."""
    import onnxruntime

    session = session_of(onnx_trees(head, n_columns))
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, n_columns)))
    output = np.empty((1, 1))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("margin", "cpu", 0, np.float64, output.shape, output.ctypes.data)

    def call(row: NDArray[np.float64]) -> float:
        value.update_inplace(row)
        session.run_with_iobinding(binding)
        return output[0, 0]

    return Peer(call, _as_batch)


def treelite_gtil(booster: lgb.Booster) -> Peer:
    """treelite's interpreter."""
    import treelite

    model = treelite.frontend.from_lightgbm(booster)
    return Peer(
        lambda rows: treelite.gtil.predict(model, rows, nthread=1, pred_margin=True), _as_batch, _same
    )


def tl2cgen_compiled(booster: lgb.Booster) -> Peer:
    """treelite's C code generator and the machine's compiler."""
    import tl2cgen
    import treelite

    model = treelite.frontend.from_lightgbm(booster)
    library = Path(tempfile.mkdtemp()) / "trees.so"
    tl2cgen.export_lib(
        model, toolchain="gcc", libpath=str(library), params={"parallel_comp": 8}, verbose=False
    )
    predictor = tl2cgen.Predictor(str(library), nthread=1)
    return Peer(
        lambda rows: predictor.predict(rows, pred_margin=True),
        lambda row: tl2cgen.DMatrix(_as_batch(row), dtype="float64"),
        lambda rows: tl2cgen.DMatrix(rows, dtype="float64"),
    )


def lleaves_compiled(booster: lgb.Booster) -> Peer:
    """LightGBM to machine code through LLVM."""
    import lleaves

    text = Path(tempfile.mkdtemp()) / "model.txt"
    booster.save_model(text)
    model = lleaves.Model(model_file=str(text))
    model.compile(raw_score=True)
    return Peer(lambda rows: model.predict(rows, n_jobs=1), _as_batch, _same)


def xgboost_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int]) -> Peer:
    """XGBoost's own ensemble of the same shape, inplace_predict."""
    import xgboost

    leafwise = {"grow_policy": "lossguide", "max_leaves": shape["num_leaves"], "max_depth": 0}
    grown = {"max_depth": shape["max_depth"]} if "max_depth" in shape else leafwise
    parameters = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 2, "eta": 0.08, **grown}
    booster = xgboost.train(parameters, xgboost.DMatrix(x, y), shape["n_trees"])
    booster.set_param({"nthread": 1})
    return Peer(lambda rows: booster.inplace_predict(rows, predict_type="margin"), _as_batch, _same)


def catboost_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int]) -> Peer:
    """CatBoost's own oblivious trees of depth ⌈log2 leaves⌉."""
    import catboost

    depth = (shape["num_leaves"] - 1).bit_length()
    model = catboost.CatBoostClassifier(
        iterations=shape["n_trees"], depth=depth, thread_count=2, verbose=False, allow_writing_files=False
    )
    model.fit(x, y)
    return Peer(
        lambda row: model.predict(row, prediction_type="RawFormulaVal", thread_count=1),
        lambda row: row.tolist(),
        _same,
    )


def ydf_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int]) -> Peer:
    """Yggdrasil's own ensemble of the same shape."""
    import ydf

    names = [f"x{i}" for i in range(x.shape[1])]
    data = {name: x[:, i] for i, name in enumerate(names)} | {"y": y.astype(int)}
    model = ydf.GradientBoostedTreesLearner(
        label="y",
        num_trees=shape["n_trees"],
        max_depth=shape.get("max_depth", -1),
        growing_strategy="BEST_FIRST_GLOBAL",
        max_num_nodes=shape["num_leaves"],
        validation_ratio=0.0,
        early_stopping="NONE",
    ).train(data, verbose=0)
    return Peer(
        lambda rows: model.predict(rows, num_threads=1),
        lambda row: {name: row[i : i + 1] for i, name in enumerate(names)},
        lambda rows: {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(names)},
    )
