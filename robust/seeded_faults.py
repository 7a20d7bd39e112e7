"""`python -m robust.seeded_faults [NAME ...]`: each fault of faults.py, one at a time, against the test-suite.

All faults are in one build and the environment chooses one, so that a run costs its tests and no compilation. The
first test that fails ends a run; dying and hanging count as noticed. Writes a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from robust.builds import BROKEN, ROOT, make
from robust.faults import FAULTS, Fault, number_of

# Where a fault is looked for, in this order, after the tests that its table names.
_SUITES = ("tests/native", "tests/score", "tests/pricing", "tests/export/test_export.py")
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Verdict:
    """`by`: the test that noticed the fault, or None; `seconds` of testing."""

    fault: Fault
    by: str | None
    seconds: float


def verdict_on(fault: Fault | None) -> Verdict:
    """Run the suites with the fault in force, until one fails; with none, all must pass."""
    started = time.monotonic()
    environment = BROKEN.process_environment()
    if fault is not None:
        environment["BIDML_FAULT"] = str(number_of(fault.name))
    # Examples do not shrink: the first that fails is enough.
    environment |= {"HYPOTHESIS_PROFILE": "bidml", "CI": "1"}
    first = [fault.tests] if fault is not None and fault.tests else []
    by = None
    for suite in dict.fromkeys([*first, *_SUITES]):
        if not (ROOT / suite).exists():
            continue
        by = _failure(suite, environment)
        if by is not None:
            break
    return Verdict(fault or Fault("none", "", "", ""), by, time.monotonic() - started)


def _failure(suite: str, environment: dict[str, str]) -> str | None:
    options = (
        "-q -x --no-header --tb=no -p no:cacheprovider -o pythonpath="  # the root would bring its own package
    )
    command = [sys.executable, "-S", "-m", "pytest", *options.split()]
    try:
        found = subprocess.run(
            [*command, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(ROOT / suite)],
            env={**environment, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            cwd=BROKEN.home,
        )
    except subprocess.TimeoutExpired:
        return f"{suite} hangs"
    if found.returncode == 0:
        return None
    for line in found.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].split(" - ")[0].split("::", 1)[-1]
    return f"{suite}: exit code {found.returncode}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m robust.seeded_faults")
    parser.add_argument("names", nargs="*", help="faults; all of them by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    chosen = [fault for fault in FAULTS if not options.names or fault.name in options.names]
    make(BROKEN)
    clean = verdict_on(None)
    if clean.by is not None:
        print(f"without a fault {clean.by} fails: nothing can be said", file=sys.stderr)
        return 1
    print("| fault | in | noticed by |\n|---|---|---|", flush=True)
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(verdict_on, chosen):
            verdicts.append(verdict)
            fault = verdict.fault
            by = f"`{verdict.by}`" if verdict.by else f"**survives**: {fault.survives or 'no test sees it'}"
            print(f"| {fault.name} | `{fault.file}` | {by} |", flush=True)
    n_caught = sum(verdict.by is not None for verdict in verdicts)
    share = n_caught / len(verdicts)
    print(f"\n{n_caught} of {len(verdicts)} noticed: {share:.1%}")
    unexplained = [v.fault.name for v in verdicts if v.by is None and not v.fault.survives]
    return 1 if share < 0.95 or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
