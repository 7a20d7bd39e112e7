"""`python -m robust.branches`: which branches of the runtime's safety no test takes. Needs coverage.py and gcov.

coverage.py is not in the lock: `pip install 'coverage>=7.4'`. Measured by the tests below: every branch of
`bidml/score`, `bidml/atomic.py` and `training/publication.py`; of the native loader and the guard (gcov, an unoptimised
build; branches that only a call's exception takes are not counted). docs/reliability.md has the reasons for the misses.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from robust.builds import GCOV, ROOT, make

TESTS = (
    *("tests/score", "tests/pricing/test_native_price.py", "tests/export/test_golden.py"),
    *("tests/export/test_export.py", "tests/training/test_publication.py", "tests/native/test_engine.py"),
)
NATIVE = ("ending.h", "engine_from_python.cc", "validate.cc", "price.h", "scorer.h")


def main() -> int:
    make(GCOV)
    for counts in GCOV.objects.glob("*.gcda"):
        counts.unlink()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        _run_tests(Path(folder), report)
        print("| file | branches | taken | not taken |\n|---|--:|--:|---|")
        for name, n_branches, n_taken, missed in (*_of_python(report), *_of_native()):
            print(f"| `{name}` | {n_branches} | {n_taken} | {'; '.join(missed)} |")
    return 0


def _run_tests(folder: Path, report: Path) -> None:
    environment = {
        **GCOV.process_environment(),
        "COVERAGE_FILE": str(folder / "data"),
        "PYTHONSAFEPATH": "1",
        "HYPOTHESIS_PROFILE": "bidml",
        "CI": "1",
    }
    environment["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    include = ",".join(
        [f"{GCOV.site}/bidml/score/*", f"{GCOV.site}/bidml/atomic.py", f"{ROOT}/training/publication.py"]
    )
    python = [sys.executable, "-S", "-m", "coverage"]
    pytest = ["-q", "--no-header", "-p", "no:cacheprovider", "-o", "pythonpath=", "--rootdir", str(ROOT)]
    tests = ["-c", str(ROOT / "pyproject.toml"), *(str(ROOT / path) for path in TESTS)]
    for command in (
        [*python, "run", "--branch", f"--include={include}", "-m", "pytest", *pytest, *tests],
        [*python, "json", "-q", "-o", str(report)],
    ):
        subprocess.run(command, env=environment, cwd=GCOV.home, check=False, stdout=sys.stderr)


def _of_python(report: Path) -> list[tuple[str, int, int, list[str]]]:
    rows = []
    for path, found in json.loads(report.read_text())["files"].items():
        summary = found["summary"]
        missed = [f"{start} to {end if end > 0 else 'the end'}" for start, end in found["missing_branches"]]
        never = set(found["missing_lines"])
        missed += [f"line {line}" for line in sorted(never)]
        name = path.split("/site/")[-1].removeprefix(f"{ROOT}/")
        rows.append((name, summary["num_branches"], summary["covered_branches"], missed))
    return sorted(rows)


def _of_native() -> list[tuple[str, int, int, list[str]]]:
    objects = [str(path) for path in GCOV.objects.glob("*.gcda")]
    taken: dict[tuple[str, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "-b", "-j", *objects], cwd=folder, check=True, capture_output=True)
        for path in Path(folder).glob("*.gcov.json.gz"):
            document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
            for file in document["files"]:
                name = Path(file["file"]).name
                for line in file["lines"] if name in NATIVE else ():
                    for i, branch in enumerate(line["branches"]):
                        if not branch["throw"]:
                            taken[name, line["line_number"]][i] += branch["count"]
    rows = []
    for name in NATIVE:
        lines = {line: list(counts.values()) for (file, line), counts in taken.items() if file == name}
        lines = {line: _of_one(counts) if name.endswith(".h") else counts for line, counts in lines.items()}
        n = sum(len(counts) for counts in lines.values())
        n_missed = sum(counts.count(0) for counts in lines.values())
        missed = [f"line {line}" for line, counts in sorted(lines.items()) if 0 in counts]
        rows.append((f"native/{name}", n, n - n_missed, missed))
    return rows


def _of_one(counts: list[int]) -> list[int]:
    """Without the conditions that one instantiation of a template never came to, and another did."""
    pairs = [counts[i : i + 2] for i in range(0, len(counts), 2)]
    return [count for pair in [pair for pair in pairs if any(pair)] or pairs for count in pair]


if __name__ == "__main__":
    sys.exit(main())
