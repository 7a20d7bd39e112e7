"""The command line: what it prints, where errors go, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from artifacts import complete_blueprint

from bidml import __version__
from bidml.cli import main
from bidml.export import write_artifact
from bidml.score import Scorer

REQUEST = {
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "EUR"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5, "utcoffset": 60}},
    "ext": {"timestamp": 1_772_366_400_000},
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.onnx"
    write_artifact(complete_blueprint(), path)
    return path


@pytest.fixture
def bidml(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bidml", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


def test_help_and_version_import_nothing_heavy() -> None:
    """`--help` answers from the standard library and typer alone."""
    program = (
        "import sys\nfrom bidml.cli import main\nsys.argv = ['bidml', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "heavy = {'numpy', 'pandas', 'lightgbm', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'matplotlib', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for command in ("train", "export", "verify", "score", "inspect", "demo"):
        assert command in found.stdout


def test_the_version_is_the_package_s(bidml: Any) -> None:
    """One number."""
    assert bidml("--version") == (0, f"{__version__}\n", "")


def test_a_wrong_option_exits_2(bidml: Any) -> None:
    """As every configuration error."""
    code, _, err = bidml("verify", "--no-such-option")
    assert code == 2
    assert "no-such-option" in err


def test_verify_prints_the_certificate(bidml: Any, artifact: Path) -> None:
    """Every evaluator, its largest difference."""
    code, out, _ = bidml("verify", artifact, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["rows"] == 256
    assert set(document["largest relative difference"]) == {"the oracle", "onnxruntime", "bidml.score"}
    assert max(document["largest relative difference"].values()) <= 1e-12
    assert "sha256" in bidml("verify", artifact)[1]


def test_a_damaged_artifact_exits_4_a_missing_one_3(bidml: Any, artifact: Path, tmp_path: Path) -> None:
    """A refusal is not a data error."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(artifact.read_bytes()[:-1])
    for command in (["verify"], ["inspect"]):
        code, out, err = bidml(*command, damaged)
        assert (code, out) == (4, "")
        assert err.startswith("bidml: ")
        assert "; found " in err
    assert bidml("verify", tmp_path / "none.onnx")[0] == 3
    assert bidml("inspect", tmp_path)[0] == 3


def test_inspect_tells_features_and_engine(bidml: Any, artifact: Path) -> None:
    """The spec with its sources, how each head runs."""
    code, out, _ = bidml("inspect", artifact, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["currency"] == "EUR"
    assert {"name": "country", "kind": "category", "source": "device.geo.country"} in document["features"]
    assert set(document["engine"]["heads"]) == {"ctr", "location", "log_slope"}
    assert "device.geo.country" in bidml("inspect", artifact)[1]


def test_score_bids_as_the_scorer_does(bidml: Any, artifact: Path, tmp_path: Path) -> None:
    """One line per request; what is no request gets its reason, not a traceback."""
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(json.dumps(request) for request in (REQUEST, {}, [], REQUEST)) + "\n\n")
    terms = ("--value-per-click", "40", "--cap-cpm", "90", "--field", "creative=320x50")
    code, out, _ = bidml("score", artifact, requests, *terms, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    scorer = Scorer.load(artifact)
    line = scorer.line_item(creative="320x50", value_per_click=40.0, cap_cpm=90.0)
    expected = scorer.bid(REQUEST, line)
    assert code == 0
    assert expected > 0.0
    assert [row["bid_cpm"] for row in rows] == [expected, 0.0, 0.0, expected]
    assert [row["reason"] for row in rows] == ["bid", "invalid_request", "invalid_request", "bid"]
    assert f"{expected:.4f}\tbid" in bidml("score", artifact, requests, *terms)[1]
    assert "expected surplus" in bidml("score", artifact, requests, *terms, "--explain")[1]
    explained = json.loads(
        bidml("score", artifact, requests, *terms, "--explain", "--json")[1].splitlines()[0]
    )
    assert explained["optimum_cpm"] >= expected * (1 - 1e-12)


def test_score_refuses_what_is_not_json_and_wrong_terms(bidml: Any, artifact: Path, tmp_path: Path) -> None:
    """Exit code 3 for the data, 2 for the terms."""
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"imp": [}\n')
    terms = ("--value-per-click", "40", "--cap-cpm", "90", "--field", "creative=x")
    assert bidml("score", artifact, requests, *terms)[0] == 3
    assert bidml("score", artifact, tmp_path / "none", *terms)[0] == 3
    assert bidml("score", artifact, requests, *terms[:4])[0] == 2
    assert bidml("score", artifact, requests, *terms, "--rate", "EUR")[0] == 2
    assert bidml("score", artifact, requests, *terms, "--rate", "USD=0")[0] == 2


def test_export_takes_a_lightgbm_text_of_your_own(bidml: Any, artifact: Path, tmp_path: Path) -> None:
    """Numbers and pandas categoricals; the artifact's pctr is LightGBM's."""
    rng = np.random.default_rng(0)
    n = 2000
    table = pd.DataFrame(
        {
            "hour": rng.integers(0, 24, n).astype(float),
            "country": pd.Categorical(rng.choice(["DEU", "FRA", "USA"], n)),
        }
    )
    clicked = rng.random(n) < np.where(table["country"] == "DEU", 0.4, 0.1)
    booster = lgb.train({"objective": "binary", "verbose": -1, "seed": 0}, lgb.Dataset(table, clicked), 20)
    text, spec, out = tmp_path / "ctr.txt", tmp_path / "spec.toml", tmp_path / "out" / "ctr.onnx"
    booster.save_model(text)
    spec.write_text(
        '[[features]]\nname = "hour"\nkind = "number"\nsource = "derived.hour_of_day"\n'
        '[[features]]\nname = "country"\nkind = "category"\nsource = "device.geo.country"\n'
    )
    code, shown, err = bidml("export", "--ctr", text, "--spec", spec, "--out", out, "--json")
    assert code == 0, err
    assert json.loads(shown)["artifact"] == str(out)
    scorer = Scorer.load(out)
    pctr = np.zeros(n)
    columns = {"hour": table["hour"].to_numpy(), "country": table["country"].astype(str).tolist()}
    scorer.score_many(columns, {"pctr": pctr})
    np.testing.assert_allclose(pctr, booster.predict(table), rtol=1e-12)

    assert bidml("export", "--ctr", text, "--out", out)[0] == 2  # no spec
    assert bidml("export", "--out", out)[0] == 2  # no part
    assert (
        bidml("export", "--ctr", out, "--win", artifact, "--out", tmp_path / "both.onnx")[0] == 3
    )  # two specs
    assert bidml("export", "--win", out, "--out", tmp_path / "win.onnx")[0] == 3  # it has no win curve
    assert bidml("export", "--ctr", artifact, "--win", artifact, "--out", tmp_path / "both.onnx")[0] == 0
    assert not (tmp_path / "win.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--log", "none.parquet", "--format", "parquet"], 3),
        (["--log", "none.parquet", "--format", "avro"], 2),
        (["--format", "parquet"], 2),
        (["--config", "none.toml"], 2),
        (["--log", "none.parquet", "--format", "parquet", "--models", "cvr"], 2),
        (["--log", "none.parquet", "--format", "parquet", "--spec", "none.toml"], 2),
    ],
)
def test_train_says_what_is_wrong_and_writes_nothing(
    bidml: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    """Rule, value, remedy on stderr; nothing on stdout, no run directory."""
    monkeypatch.chdir(tmp_path)
    found, out, err = bidml("train", *arguments, "--out", "run")
    assert (found, out) == (code, "")
    assert err.startswith("bidml: ")
    assert err.count("; ") >= 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["demo"], ["export", "--ctr"]])
def test_an_out_that_cannot_be_used_is_told_without_a_traceback(
    bidml: Any, artifact: Path, tmp_path: Path, command: list[str]
) -> None:
    """A file where a folder must be: exit code 3, rule, value, remedy."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    if command[0] == "export":
        command = [*command, str(artifact)]
    code, out, err = bidml(*command, "--out", in_the_way / "below" / "model.onnx")
    assert (code, out) == (3, "")
    assert err.startswith("bidml: files and folders named by options can be used; found ")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"key": 1}', "no JSON"])
def test_a_damaged_note_of_an_earlier_demo_is_ignored(tmp_path: Path, text: str) -> None:
    """The demo then runs again instead of failing."""
    from bidml.demo import _metrics_of_earlier_run

    (tmp_path / "demo.json").write_text(text)
    assert _metrics_of_earlier_run(tmp_path, "key") is None
