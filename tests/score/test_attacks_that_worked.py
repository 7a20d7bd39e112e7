"""Every input that once broke the runtime, kept: what `make robust` found, and what it must never find again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from artifacts import complete_blueprint

from bidml.contract import NoBidReason
from bidml.metadata import SelfCheck
from bidml.score import LineItem, Scorer
from bidml.score.reader import Artifact

REQUEST = {"imp": [{"bidfloor": 0.1, "bidfloorcur": "EUR"}], "device": {"geo": {"country": "USA"}}}

SCORE_FOREVER = """
import threading, time
from array import array
from test_attacks_that_worked import scorer_and_line
from artifacts import SPEC
from bidml.contract import PRICE_INPUTS
scorer, _ = scorer_and_line()
columns = {f.name: [""] * 2_000 if f.kind == "category" else 0.0 for f in SPEC.features}
columns |= dict.fromkeys(PRICE_INPUTS, 1.0)
def forever():
    out = array("d", bytes(16_000))
    while True:
        scorer.bid_many(columns, out=out)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.1)
print("done")
"""

IN_A_SUBINTERPRETER = """
import sys
import _xxsubinterpreters as interpreters
from test_attacks_that_worked import REQUEST, scorer_and_line
scorer, line = scorer_and_line()
bid = scorer.bid(REQUEST, line)
other = interpreters.create()
try:
    interpreters.run_string(other, f"import sys\\nsys.path = {sys.path!r}\\nimport bidml.score")
except interpreters.RunFailedError as refusal:
    print(refusal)
interpreters.destroy(other)
assert scorer.bid(REQUEST, line) == bid
print("done")
"""


def scorer_and_line() -> tuple[Scorer, LineItem]:
    scorer = Scorer(Artifact(complete_blueprint(), SelfCheck({}, {}), ""))
    return scorer, scorer.line_item(creative="320x50", value_per_click=1.0, cap_cpm=9.0)


def output_of(program: str) -> str:
    """What a process that runs `program` prints; it must end well."""
    here = Path(__file__).resolve().parent
    environment = {"PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}", "PYTHONFAULTHANDLER": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_interpreter_exits_while_daemon_threads_score() -> None:
    """They asked for the GIL, were told to die, and took the process with them: SIGABRT in 6 of 6 exits."""
    assert output_of(SCORE_FOREVER) == "done\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module of subinterpreters has another name")
def test_a_subinterpreter_is_refused_and_the_first_one_goes_on() -> None:
    """An import in a second interpreter replaced the type that the first one's hot path compares with."""
    assert "main interpreter" in output_of(IN_A_SUBINTERPRETER)


@pytest.mark.parametrize("request_", [None, (), "imp", 1.5, [REQUEST]])
def test_no_request_is_explained_as_a_no_bid(request_: object) -> None:
    """`explain(None, line)` was a TypeError about nanobind's argument types."""
    scorer, line = scorer_and_line()
    assert scorer.explain(request_, line).reason is NoBidReason.INVALID_REQUEST


def test_objects_without_init_are_refused() -> None:
    """The hot path read the model of a line item that had none."""
    scorer, line = scorer_and_line()
    for other, item in ((scorer, LineItem.__new__(LineItem)), (Scorer.__new__(Scorer), line)):
        for call in (other.bid, other.decide):
            with pytest.raises(TypeError, match="a line item"):
                call(REQUEST, item)
        with pytest.raises(TypeError, match="a line item"):
            other.best(REQUEST, [item])
