"""Adapters: each peer as `(call, rows)` for one LightGBM booster, as its own users would write it.

A peer that is not installed raises ImportError; the benchmark then reports it as such.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.tree_models import N_COLUMNS
from bidml.blueprint import Head
from bidml.contract import IR_VERSION, ML_OPSET, OPSET

Adapter = tuple[Callable[[Any], object], Sequence[Any]]


def lightgbm_predict(booster: lgb.Booster, rows: NDArray[np.float64]) -> Adapter:
    """Booster.predict of one row, raw score."""
    return lambda row: booster.predict(row, raw_score=True), [row.reshape(1, -1) for row in rows]


class SingleRowFast:
    """LightGBM's fastest call for one row, through ctypes: the library's pre-configured predictor."""

    C_API_DTYPE_FLOAT64, C_API_PREDICT_RAW_SCORE = 1, 1

    def __init__(self, booster: lgb.Booster) -> None:
        library = ctypes.CDLL(str(next(Path(lgb.__file__).parent.rglob("lib_lightgbm.so"))))
        self._keep_alive = booster
        self._config = ctypes.c_void_p()
        failed = library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, self.C_API_PREDICT_RAW_SCORE, 0, -1, self.C_API_DTYPE_FLOAT64, N_COLUMNS,
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


def lightgbm_single_row_fast(booster: lgb.Booster, rows: NDArray[np.float64]) -> Adapter:
    """Rows are addresses: even the pointer conversion is done beforehand."""
    return SingleRowFast(booster), [row.ctypes.data for row in rows]


def onnx_trees(head: Head) -> bytes:
    """The trees as one ONNX `TreeEnsemble` in double: input x [N, 40], output margin [N, 1]."""
    trees = head.trees
    assert trees is not None
    n_nodes, n_leaves = len(trees.column), len(trees.leaf)
    features = [int(column.feature.removeprefix("x")) for column in head.columns]
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
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, N_COLUMNS])],
        [helper.make_tensor_value_info("margin", TensorProto.DOUBLE, [None, 1])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def onnxruntime_run(head: Head, rows: NDArray[np.float64]) -> Adapter:
    """InferenceSession.run of one row, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_trees(head), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0], [{"x": row.reshape(1, -1)} for row in rows]


def onnxruntime_bound(head: Head, rows: NDArray[np.float64]) -> Adapter:
    """The same with IOBinding: the input is updated in place, nothing is allocated by Python."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_trees(head), options, providers=["CPUExecutionProvider"])
    value = onnxruntime.OrtValue.ortvalue_from_numpy(rows[:1])
    output = np.empty((1, 1))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("margin", "cpu", 0, np.float64, output.shape, output.ctypes.data)

    def call(row: NDArray[np.float64]) -> float:
        value.update_inplace(row)
        session.run_with_iobinding(binding)
        return output[0, 0]

    return call, [row.reshape(1, -1) for row in rows]


def treelite_gtil(booster: lgb.Booster, rows: NDArray[np.float64]) -> Adapter:
    """treelite's interpreter."""
    import treelite

    model = treelite.frontend.from_lightgbm(booster)
    return lambda row: treelite.gtil.predict(model, row, nthread=1, pred_margin=True), [
        row.reshape(1, -1) for row in rows
    ]


def tl2cgen_compiled(booster: lgb.Booster, rows: NDArray[np.float64]) -> Adapter:
    """treelite's C code generator and the machine's compiler."""
    import tl2cgen
    import treelite

    model = treelite.frontend.from_lightgbm(booster)
    library = Path(tempfile.mkdtemp()) / "trees.so"
    tl2cgen.export_lib(
        model, toolchain="gcc", libpath=str(library), params={"parallel_comp": 8}, verbose=False
    )
    predictor = tl2cgen.Predictor(str(library), nthread=1)
    return lambda row: predictor.predict(row, pred_margin=True), [
        tl2cgen.DMatrix(row.reshape(1, -1), dtype="float64") for row in rows
    ]


def lleaves_compiled(booster: lgb.Booster, rows: NDArray[np.float64]) -> Adapter:
    """LightGBM to machine code through LLVM."""
    import lleaves

    text = Path(tempfile.mkdtemp()) / "model.txt"
    booster.save_model(text)
    model = lleaves.Model(model_file=str(text))
    model.compile(raw_score=True)
    return lambda row: model.predict(row, n_jobs=1), [row.reshape(1, -1) for row in rows]


def xgboost_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int], rows: Any) -> Adapter:
    """XGBoost's own ensemble of the same shape, inplace_predict."""
    import xgboost

    leafwise = {"grow_policy": "lossguide", "max_leaves": shape["num_leaves"], "max_depth": 0}
    grown = {"max_depth": shape["max_depth"]} if "max_depth" in shape else leafwise
    parameters = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 2, "eta": 0.08, **grown}
    booster = xgboost.train(parameters, xgboost.DMatrix(x, y), shape["n_trees"])
    booster.set_param({"nthread": 1})
    return lambda row: booster.inplace_predict(row, predict_type="margin"), [
        row.reshape(1, -1) for row in rows
    ]


def catboost_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int], rows: Any) -> Adapter:
    """CatBoost's own oblivious trees of depth ⌈log2 leaves⌉."""
    import catboost

    depth = (shape["num_leaves"] - 1).bit_length()
    model = catboost.CatBoostClassifier(
        iterations=shape["n_trees"], depth=depth, thread_count=2, verbose=False, allow_writing_files=False
    )
    model.fit(x, y)
    return lambda row: model.predict(row, prediction_type="RawFormulaVal", thread_count=1), [
        row.tolist() for row in rows
    ]


def ydf_own(x: NDArray[np.float64], y: NDArray[np.float64], shape: dict[str, int], rows: Any) -> Adapter:
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
    return lambda row: model.predict(row), [
        {name: row[i : i + 1] for i, name in enumerate(names)} for row in rows
    ]
