"""Why this price, by features: parts that add up to margin and money, from the artifact alone or a background."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SPEC, complete_blueprint

from bidml.cli import main
from bidml.errors import ConfigError, DataError
from bidml.export import write_artifact
from bidml.features import margins, raw_columns
from bidml.log import read_log
from bidml.report.why import save_waterfall, waterfall
from bidml.score import LineItem, Scorer
from bidml.why import margin_parts, self_check_rows, why_this_price


@pytest.fixture(scope="module")
def scorer(simulated_run: Any) -> Scorer:
    return Scorer.load(simulated_run.artifact)


@pytest.fixture(scope="module")
def auctions(simulated_run: Any) -> list[dict[str, Any]]:
    with gzip.open(simulated_run.folder / "requests.jsonl.gz", "rt") as lines:
        return [json.loads(next(lines)) for _ in range(8)]


def line_of(scorer: Scorer, auction: dict[str, Any]) -> LineItem:
    return scorer.line_item(cap_cpm=40.0, margin=0.1, pacing_multiplier=0.9, **auction["line_item"])


def test_parts_add_up_to_margin_value_and_median(scorer, auctions):
    """Of the CTR head in log-odds and in value, of the win curve's location in the median price."""
    for auction in auctions:
        why = why_this_price(scorer, auction["request"], line_of(scorer, auction))
        explained = why.explanation
        assert why.value.margin == pytest.approx(explained.ctr_margin, abs=1e-9)
        assert why.value.total_cpm == pytest.approx(explained.value_cpm, rel=1e-9)
        assert why.market.margin == pytest.approx(explained.location_margin, abs=1e-9)
        assert why.market.total_cpm == pytest.approx(math.exp(explained.win_location), rel=1e-9)
        for parts in (why.value, why.market):
            named = {
                name for part in parts.parts for name in part.feature.split("*")
            }  # a cross has both names
            assert named <= set(explained.features)
            money = [abs(part.money_cpm) for part in parts.parts]
            assert money == sorted(money, reverse=True)
            assert money[0] > 0.0


def test_more_log_odds_are_more_value_and_less_margin_of_winning_a_higher_price(scorer, auctions):
    """Signs: a part of pctr that is positive is worth money; of the log-odds of winning, it lowers the price."""
    why = why_this_price(scorer, auctions[0]["request"], line_of(scorer, auctions[0]))
    assert all(part.margin * part.money_cpm >= 0.0 for part in why.value.parts)
    assert all(part.margin * part.money_cpm <= 0.0 for part in why.market.parts)


def test_a_background_of_training_rows_moves_the_base_only(scorer, simulated_run, auctions):
    """Another background: other parts, the same sums."""
    log = read_log(simulated_run.log, format="parquet").head(2_000)
    past = raw_columns(log, scorer.blueprint.spec)
    request, line = auctions[1]["request"], line_of(scorer, auctions[1])
    own, other = why_this_price(scorer, request, line), why_this_price(scorer, request, line, background=past)
    assert own.value.base_margin != other.value.base_margin
    assert own.value.margin == pytest.approx(other.value.margin, abs=1e-9)
    assert other.value.base_margin == pytest.approx(margins(past, scorer.blueprint.ctr.head).mean(), abs=0.02)


def test_every_part_of_the_format_is_explained(tmp_path):
    """Shared lookups, rewrites, sets, terms, scale and divisor: base + parts is the plain margin."""
    write_artifact(complete_blueprint(), tmp_path / "model.onnx")
    scorer = Scorer.load(tmp_path / "model.onnx")
    rows = self_check_rows(scorer)
    plain = {
        f.name: rows[f.name] if f.kind == "category" else rows[f.name].astype(np.float64)
        for f in SPEC.features
    }
    for head in (scorer.blueprint.ctr.head, scorer.blueprint.win.location, scorer.blueprint.win.log_slope):
        base, parts = margin_parts(head, plain, plain)
        total = base + sum(parts.values(), np.zeros(len(plain["hour"])))
        np.testing.assert_allclose(total, margins(plain, head), atol=1e-12)


def test_no_bid_is_explained_as_far_as_it_came(scorer, auctions):
    line = line_of(scorer, auctions[0])
    early = why_this_price(scorer, {"imp": 3}, line)
    assert (early.value, early.market) == (None, None)
    assert str(early).startswith("no bid: ")
    assert early.to_json()["value"] is None
    dear = json.loads(json.dumps(auctions[0]["request"]))
    dear["imp"][0]["bidfloor"] = 39.0
    late = why_this_price(scorer, dear, line)
    assert late.value is not None
    assert "no bid: value_below_floor" in str(late)


def test_a_background_has_rows_and_all_features(scorer, auctions):
    request, line = auctions[0]["request"], line_of(scorer, auctions[0])
    rows = self_check_rows(scorer)
    with pytest.raises(DataError, match="background has rows"):
        why_this_price(scorer, request, line, background={name: cells[:0] for name, cells in rows.items()})
    del rows["country"]
    with pytest.raises(DataError, match="model's features"):
        why_this_price(scorer, request, line, background=rows)


def test_the_chart_draws_the_steps(scorer, auctions, tmp_path):
    """Bars from one level to the next, then the bid."""
    explanation = scorer.explain(auctions[2]["request"], line_of(scorer, auctions[2]))
    (axes,) = waterfall(explanation).axes
    steps = [step for step in explanation.waterfall if round(step.change_cpm, 4) != 0.0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [*(s.name for s in steps), "bid"]
    assert [p.get_width() for p in axes.patches] == pytest.approx(
        [*(s.change_cpm for s in steps), explanation.bid_cpm]
    )
    assert [p.get_x() for p in axes.patches[:-1]] == pytest.approx([s.before_cpm for s in steps])
    assert axes.get_xlabel() == "USD CPM"
    save_waterfall(explanation, tmp_path / "why.svg")
    assert (tmp_path / "why.svg").read_text().startswith("<?xml")
    with pytest.raises(ConfigError, match="ends in its format"):
        save_waterfall(explanation, tmp_path / "why.txt")


def test_the_command_line(
    simulated_run: Any, auctions: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(json.dumps(auction["request"]) for auction in auctions[:2]))
    terms = dict(auctions[0]["line_item"])
    command = ["bidml", "explain", str(simulated_run.artifact), str(requests), "--cap-cpm", "40"]
    command += ["--value-per-click", str(terms.pop("value_per_click")), "--margin", "0.1"]
    command += [option for name, value in terms.items() for option in ("--field", f"{name}={value}")]
    for extra in (
        ["--top", "3", "--plot", str(tmp_path / "why.png")],
        ["--json", "--background", str(simulated_run.log)],
    ):
        monkeypatch.setattr(sys, "argv", [*command, *extra])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    said = capsys.readouterr().out
    text, _, documents = said.partition('{"request"')
    assert "other features" in text
    assert "market price, median" in text
    found = [json.loads(line) for line in ('{"request"' + documents).splitlines()]
    assert [document["request"] for document in found] == [1, 2]
    assert found[0]["steps"][-1]["after_cpm"] == found[0]["bid_cpm"]
    assert (tmp_path / "why.png").stat().st_size > 1_000
