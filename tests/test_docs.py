"""What the documents show works: examples and commands run, links and files exist, the API reference is up to date."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/*.md")), *sorted(ROOT.glob("docs/api/*.md"))]
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
NOT_RUN = {
    "python -m training.demo_log": "minutes; tests/training/test_retrain.py runs it on fewer auctions",
    "python -m training.retrain": "minutes; tests/training/test_retrain.py runs it on fewer auctions",
    "python -m training.canary": "a log of two arms; tests/training/test_canary.py",
    "bidml train --config training/configs/kddcup2012.toml": "real data; tests/train/test_real_logs.py",
    "bidml replay runs/today/model.onnx --config training/configs/ipinyou_2259.toml": "needs a model of that log",
}
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_s_examples_run(
    simulated_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in order, in one namespace, on a simulated log."""
    from bidml.simulate import simulate

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("model.onnx", "model.onnx.json"):
        content = (simulated_run.folder / name).read_bytes()
        (tmp_path / "models" / name.replace("model", "champion", 1)).write_bytes(content)
    request = simulate(10, rng=np.random.default_rng(1)).requests([3])[0]
    namespace: dict[str, Any] = {"np": np, "request": request}
    examples = blocks(ROOT / "README.md", "python")
    assert len(examples) == 2
    for example in examples:
        assert len(example.splitlines()) <= 12, "the README promises ten lines"
        exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["bid_cpm"] >= 0.0
    assert len(namespace["curve"]) == 30_000


@pytest.fixture(scope="module")
def checkout(simulated_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documents' examples find what they name: models, logs, events, a spec, a publication."""
    from bidml.log import write_log
    from bidml.score import DecisionLog, Scorer
    from bidml.simulate import Market, simulate
    from training.publication import publish_bytes

    folder = tmp_path_factory.mktemp("checkout")
    artifact = simulated_run.artifact.read_bytes()
    for place in ("models/champion.onnx", "runs/today/model.onnx"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(artifact)
        shutil.copy(f"{simulated_run.artifact}.json", folder / f"{place}.json")
    sim = simulate(
        5000, rng=np.random.default_rng(1), market=Market(base_ctr=0.1, base_cvr=0.3, n_apps=50, days=2.0)
    )
    (folder / "logs").mkdir()
    write_log(sim.log, folder / "logs" / "auctions.parquet")
    events = "\n".join(json.dumps(event) for event in events_of(sim[:1500]))
    (folder / "events" / "2026-03-01").mkdir(parents=True)
    (folder / "events" / "2026-03-01" / "events.jsonl").write_text(events)
    (folder / "requests.jsonl").write_text("\n".join(json.dumps(r) for r in sim.requests(range(40))))
    features = "".join(
        f"[[features]]\nname = {f.name!r}\nkind = {str(f.kind)!r}\nsource = {f.source!r}\n"
        for f in sim.spec.features
    )
    (folder / "spec.toml").write_text(features)
    (folder / "training").mkdir()
    shutil.copytree(ROOT / "training" / "configs", folder / "training" / "configs")
    for place in ("champion", "challenger"):
        for generation, content in enumerate((b"the release before", artifact)):
            publish_bytes(
                folder / "srv" / "bidml" / place,
                content,
                expected_generation=generation,
                data_end="2026-03-08T00:00:00+00:00",
            )
    scorer = Scorer.load(folder / "models" / "champion.onnx")
    line = scorer.line_item(value_per_click=0.3, cap_cpm=8.0, **sim.line_item_fields(0))
    with DecisionLog(folder / "decisions.jsonl", share=1.0) as decisions:
        for request in sim.requests(range(5)):
            decisions.bid(scorer, request, line)
    data = ROOT.parent / "shared" / "data"
    for path in data.iterdir() if data.is_dir() else ():
        (folder / path.name).symlink_to(path)
    return folder


def events_of(sim: Any) -> Iterator[dict[str, Any]]:
    """The raw events of a simulated log."""
    for row, request in zip(sim.log.itertuples(), sim.requests(slice(None)), strict=True):
        about = {"auction_id": row.auction_id, "timestamp_ms": int(row.timestamp.timestamp() * 1000)}
        line = {"id": row.line_item_id, "campaign_id": row.campaign_id, "creative": row.creative}
        bid = {"request": request, "bid_cpm": row.bid_cpm, "currency": row.currency, "line_item": line}
        yield {**about, "type": "bid", **bid}
        yield {**about, "type": "win", "price_cpm": row.price_cpm} if row.won else {**about, "type": "loss"}
        if row.clicked:
            yield {**about, "type": "click", "timestamp_ms": about["timestamp_ms"] + 5000}


@pytest.fixture
def names(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A copy of the checkout to stand in, and the names that examples use without making them."""
    import prometheus_client

    import bidml.pacing
    from bidml.blueprint import Blueprint
    from bidml.score import Scorer, follow
    from bidml.simulate import Market, simulate

    here = shutil.copytree(checkout, tmp_path / "checkout", symlinks=True)
    monkeypatch.chdir(here)
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    monkeypatch.setattr(prometheus_client, "start_http_server", lambda port: registry.collect())
    sim = simulate(10, rng=np.random.default_rng(1))
    request = sim.requests([3])[0]
    log = pd.read_parquet(here / "logs" / "auctions.parquet")
    scorer = Scorer.load(here / "models" / "champion.onnx")
    fields = {"campaign_id": "c42", "creative": "cr7", "value_per_click": 0.45, "cap_cpm": 8.0}
    line = scorer.line_item(**fields)
    for _ in range(500):
        scorer.bid(request, line)
    with follow(here / "srv/bidml/champion", interval_seconds=None) as following:
        yield {
            "np": np,
            "Blueprint": Blueprint,
            "simulate": simulate,
            "Market": Market,
            **{name: getattr(bidml.pacing, name) for name in bidml.pacing.__all__},
            "request": request,
            "scorer": scorer,
            "following": following,
            "line": following.line_item(**fields),
            "log": log,
            "new": log,
            "spec": simulate(10, rng=np.random.default_rng(1)).spec,
            "win": scorer.blueprint.win,
            "written_at": log["timestamp"].max() + pd.Timedelta("8D"),
            "budget": 100.0,
            "past_days": [[5000.0] * 24] * 3,
            "window": 0,
            "bid_cpm": 1.0,
            "chances_of_the_logged_bids": np.full(len(log), 0.4),
            "value_cpm": 2.0,
            "delays": [1.0, 5.0, 9.0],
            "ages": [100.0] * 3,
            "shown": np.arange(50.0),
            "now": 1e6,
            "pctr": np.full(50, 0.1),
            "clicked": np.arange(50.0) + 2.0,
        }


@pytest.mark.parametrize(
    "document", [path for path in GUIDES if blocks(path, "python")], ids=lambda path: path.stem
)
@pytest.mark.filterwarnings("ignore::bidml.fit.IdentifiabilityWarning", "ignore::bidml.fit.FallbackWarning")
def test_the_guides_examples_run(document: Path, names: dict[str, Any], shared_data: Path) -> None:
    """All Python blocks of a document, in order, in one namespace; money and times as in production."""
    if document.name == "README.md":
        return  # its own test demands more
    for example in blocks(document, "python"):
        if "from airflow" in example:
            continue  # Airflow is not in the lock; tests/training/test_schedules.py compiles it and runs its command
        code = example.replace('"/srv/bidml', f'"{Path.cwd()}/srv/bidml')
        exec(compile(code, document.name, "exec"), names)


def commands(document: Path) -> list[str]:
    """The commands of a document's shell blocks, without their comments."""
    found = []
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command and not any(command.startswith(left_out) for left_out in NOT_RUN):
                found.append(command)
    return found


@pytest.mark.parametrize("document", [path for path in GUIDES if commands(path)], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::bidml.fit.IdentifiabilityWarning", "ignore::bidml.fit.FallbackWarning")
def test_the_guides_commands_run(document: Path, names: dict[str, Any], shared_data: Path) -> None:
    """Each shell command, in order, in one folder, ends with 0."""
    from bidml.cli import app

    for command in commands(document):
        words = [word.replace("/srv/bidml", f"{Path.cwd()}/srv/bidml") for word in shlex.split(command)]
        if words[0] == "bidml":
            run, arguments = app, words[1:]
        else:
            assert words[:2] == ["python", "-m"], (
                f"run it here, or name it in NOT_RUN with a reason: {command}"
            )
            run, arguments = typer.Typer(), words[3:]
            run.command()(importlib.import_module(words[2]).main)
        result = CliRunner().invoke(run, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{command}: {result.output}"


def test_every_guide_is_in_the_index() -> None:
    """docs/README.md leads to each page."""
    index = (ROOT / "docs" / "README.md").read_text()
    for path in sorted((ROOT / "docs").glob("*.md")):
        assert path.name == "README.md" or f"({path.name}" in index, path.name


def test_the_api_reference_is_up_to_date() -> None:
    """After a change of a public signature or docstring: `make reference`, and commit it."""
    from docs.reference import OUT, pages

    made = pages()
    there = {path.name: path.read_text() for path in OUT.glob("*.md")}
    assert sorted(made) == sorted(there)
    assert [name for name in made if made[name] != there[name]] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links name files of the project."""
    for target in LINK.findall(document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_commands_in_the_documents_exist() -> None:
    """Every `bidml <command>` and option in a shell block is one of the command line."""
    from bidml.cli import app

    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            for command in re.findall(r"^bidml (\S+)", block, re.MULTILINE):
                assert command in known, f"{document.name}: bidml {command}"
