"""`python -m robust.seeded_faults [NAME ...]`: each fault of faults.py and faults_of_pricing.py against the test-suite.

All native faults are in one build and the environment chooses one, so that a run costs its tests and no compilation; a
fault of Python is made in a copy of the package. The tests named beside a fault come first, and the first test that
fails ends the run. Dying counts as noticed. A run that uses `_TIMES_LONGER` times the processor time of the tests
without a fault counts as noticed, too, and the table says so: read what the fault does. Races are left to the attack
"threads". Prints Markdown: the faults, then the files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from robust.builds import BROKEN, HOME, ROOT, make, path_of
from robust.faults import BY_AN_ATTACK, FAULTS, Fault, number_of
from robust.faults_of_pricing import FAULTS_OF_PRICING

# Where a fault is looked for, in this order, after the tests that its table names.
_SUITES = ("tests/score", "tests/native", "tests/pricing", "tests/export", "tests/test_features.py")
_TIMES_LONGER, _LONGEST_S = 4, 1_000
# The root would bring its own package.
_OPTIONS = (
    "-q -x --no-header --tb=no -p no:cacheprovider -o pythonpath= -W ignore::pytest.PytestAssertRewriteWarning"
    f" --rootdir {ROOT} -c {ROOT}/pyproject.toml"
)


@dataclass(frozen=True)
class Verdict:
    """`by`: the test that noticed the fault, or None; `how` it did; `cpu_s`: seconds of processor time of the tests."""

    fault: Fault
    by: str | None
    how: str
    cpu_s: float

    @property
    def row(self) -> str:
        by = f"**survives**: {self.fault.survives or 'no test sees it'}"
        if self.by:
            by = f"`{self.by.split('/', 1)[-1]}`" + ("" if self.how == "fails" else f" {self.how}")
        return f"| {self.fault.name} | `{self.fault.file}` | {by} | {self.cpu_s:.0f} |"


class Suites:
    """Processes that fork for each question (`suite.py`); one question at a time each."""

    def __init__(self, n: int) -> None:
        # Examples do not shrink: the first that fails is enough.
        self.environment = BROKEN.process_environment() | {
            "HYPOTHESIS_PROFILE": "bidml",
            "CI": "1",
            "PYTHONSAFEPATH": "1",
        }
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for _ in range(n):
            command = [sys.executable, "-S", "-m", "robust.suite"]
            pipe = subprocess.PIPE
            self._free.put(
                subprocess.Popen(
                    command, env=self.environment, cwd=BROKEN.home, stdin=pipe, stdout=pipe, text=True
                )
            )

    def run(self, tests: list[str], environment: dict[str, str], cpu_s: float) -> dict[str, Any]:
        question = {"tests": [f"{ROOT}/{test}" for test in tests], "options": _OPTIONS.split()}
        question |= {"environment": self.environment | environment, "cpu_s": int(cpu_s) + 1}
        process = self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        self._free.put(process)
        return answer


def verdict_on(fault: Fault, tests: Sequence[str], suites: Suites, cpu_s: float) -> Verdict:
    """Run the tests with the fault in force, until one fails."""
    environment, home = {}, None
    if fault in FAULTS_OF_PRICING:
        home = _copy_with(fault)
        environment["PYTHONPATH"] = path_of(home / "site")
    elif fault in FAULTS:
        environment["BIDML_FAULT"] = str(number_of(fault.name))
    answer = suites.run([*tests], environment, cpu_s)
    if home is not None:
        shutil.rmtree(home)
    return Verdict(fault, answer["by"], answer["how"], answer["cpu_s"])


def _copy_with(fault: Fault) -> Any:
    """A folder whose `site` has the package with the edit; raises `ValueError` for an `old` that is not there once."""
    text = (ROOT / "bidml" / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.file} has {text.count(fault.old)} times {fault.old!r}")
    home = HOME / f"seeded-{FAULTS_OF_PRICING.index(fault)}"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(
        BROKEN.site / "bidml", home / "site" / "bidml", ignore=shutil.ignore_patterns("__pycache__")
    )
    (home / "site" / "bidml" / fault.file).write_text(text.replace(fault.old, fault.new))
    return home


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m robust.seeded_faults")
    parser.add_argument("names", nargs="*", help="faults or files; all of them by default")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument(
        "--no-clean", action="store_true", help="do not first see that all passes without a fault"
    )
    options = parser.parse_args(arguments)
    all_of_them = [fault for fault in (*FAULTS, *FAULTS_OF_PRICING) if fault.tests != BY_AN_ATTACK]
    wanted = set(options.names)
    chosen = [fault for fault in all_of_them if not wanted or {fault.name, fault.file} & wanted]
    make(BROKEN)
    suites = Suites(options.jobs)
    longest_s: float = _LONGEST_S
    if not options.no_clean:
        clean = verdict_on(Fault("none", "", "", ""), _SUITES, suites, _LONGEST_S)
        if clean.by is not None:
            print(f"without a fault {clean.by} {clean.how}: nothing can be said", file=sys.stderr)
            return 1
        print(f"Without a fault: {clean.cpu_s:.0f} s of processor time.\n", flush=True)
        longest_s = _TIMES_LONGER * clean.cpu_s
    print("| fault | in | noticed by | s |\n|---|---|---|--:|", flush=True)
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(lambda f: verdict_on(f, f.tests.split(), suites, longest_s), chosen):
            if verdict.by is not None:
                verdicts.append(verdict)
                print(verdict.row, flush=True)
        # Those that their own tests do not see cost a run of all tests each: last.
        alive = [fault for fault in chosen if fault not in {verdict.fault for verdict in verdicts}]
        print(f"\nNot noticed by the tests beside them: {len(alive)}.\n", flush=True)
        for verdict in pool.map(lambda f: verdict_on(f, _SUITES, suites, longest_s), alive):
            verdicts.append(verdict)
            print(verdict.row, flush=True)
    return _summary(verdicts)


def _summary(verdicts: list[Verdict]) -> int:
    """Print what was tried and caught in each file; 1 for less than 95 % or a survivor without a reason."""
    tried = Counter(verdict.fault.file for verdict in verdicts)
    caught = Counter(verdict.fault.file for verdict in verdicts if verdict.by is not None)
    print("\n| file | tried | caught | survivors |\n|---|--:|--:|---|")
    for file, n in tried.items():
        alive = [v.fault.name for v in verdicts if v.by is None and v.fault.file == file]
        print(f"| `{file}` | {n} | {caught[file]} | {'; '.join(alive)} |")
    share = sum(caught.values()) / len(verdicts)
    print(f"\n{sum(caught.values())} of {len(verdicts)} noticed: {share:.1%}")
    unexplained = [v.fault.name for v in verdicts if v.by is None and not v.fault.survives]
    return 1 if share < 0.95 or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
