"""A publication is old or new, never torn, and success is never reported falsely."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from artifacts import complete_blueprint
from disk_faults import CALLS, ERRORS, Fault, PowerCuts, failing, materialise, short_writes

from bidml import atomic
from bidml.errors import ArtifactError, ConfigError, DataError, RefusedError
from bidml.export import write_artifact
from bidml.score.publication import (
    MAX_HISTORY,
    PUBLICATION_MANIFEST,
    Publication,
    Release,
    read_publication,
    read_release,
)
from training import publication as writing
from training.publication import StaleGenerationError, publish_bytes, republish
from training.publish import publish

ROOT = Path(__file__).resolve().parents[2]
LONG = bool(os.environ.get("BIDML_LONG_TESTS"))
OLD, NEW = b"old" * 700, b"new" * 900
KEY = b"sixteen bytes or more"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one: forcing to a disk would take most of a test's time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def generation_of(folder: Path) -> int:
    found = read_publication(folder)
    return found.current.generation if found else 0


def publish_next(folder: Path, data: bytes, **options: Any) -> Publication:
    return publish_bytes(folder, data, expected_generation=generation_of(folder), **options)


def content_of(folder: Path) -> bytes | None:
    """What a bidder reads: the current artifact's bytes; None when nothing is published. Raises when torn."""
    found = read_publication(folder)
    return None if found is None else read_release(folder, found.current)


# ---- what a publication says ----


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    """Signed or not; with the wrong key, or none where one is demanded, it is refused."""
    publish_next(tmp_path, OLD, data_end="2026-11-06T00:00:00+00:00")
    made = publish_next(tmp_path, NEW, note="Ελλάδα")
    for key in (None, KEY):
        assert Publication.from_bytes(made.to_bytes(key), key) == made
    assert (made.current.generation, made.previous) == (2, 1)
    for data, key in ((made.to_bytes(), KEY), (made.to_bytes(KEY), b"another key of 16")):
        with pytest.raises(ArtifactError, match="signed"):
            Publication.from_bytes(data, key)
    altered = json.loads(made.to_bytes(KEY))
    altered["note"] = "altered"
    with pytest.raises(ArtifactError, match="signed"):
        Publication.from_bytes(json.dumps(altered).encode(), KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0},
        {"generation": True},
        {"generation": 1},
        {"sha256": "0" * 63},
        {"sha256": "../" + "0" * 61},
        {"bytes": -1},
        {"bytes": 1 << 60},
        {"data_end": "2026-11-07"},
        {"published": None},
        {"note": "x" * 201},
        {"previous": 2},
        {"history": {}},
        {"history": [{}]},
        {"contract": 99},
        {"publication": 2},
        {"more": 1},
    ],
    ids=str,
)
def test_an_altered_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Whatever was changed: only what training.publish writes is read."""
    publish_next(tmp_path, OLD)
    document = json.loads(publish_next(tmp_path, NEW).to_bytes())
    with pytest.raises(ArtifactError):
        Publication.from_bytes(json.dumps(document | change).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a":1}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, data: bytes) -> None:
    """Never another exception."""
    (tmp_path / PUBLICATION_MANIFEST).write_bytes(data)
    with pytest.raises(ArtifactError):
        read_publication(tmp_path)


def test_an_enormous_manifest_is_not_read(tmp_path: Path) -> None:
    """A limit before allocation."""
    with (tmp_path / PUBLICATION_MANIFEST).open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(ArtifactError, match="at most"):
        read_publication(tmp_path)


def test_an_altered_artifact_is_refused(tmp_path: Path) -> None:
    """Its name is its digest; the manifest knows its size."""
    release = publish_next(tmp_path, OLD).current
    for damaged in (OLD[:-1], OLD + b"x", b"x" + OLD[1:]):
        (tmp_path / release.file_name).write_bytes(damaged)
        with pytest.raises(ArtifactError):
            read_release(tmp_path, release)


# ---- publishing ----


def test_generations_rise_and_the_history_keeps_the_newest(memory: Path) -> None:
    """Artifacts that no release names any more are removed; those of the history can all be read."""
    for number in range(MAX_HISTORY + 5):
        made = publish_next(memory, str(number).encode())
        assert made.current.generation == number + 1
    assert len(made.history) == MAX_HISTORY
    assert len(made.to_bytes()) < 16_384
    assert {path.name for path in memory.glob("*.onnx")} == {r.file_name for r in made.releases}
    for release in made.releases:
        read_release(memory, release)


def test_publishing_again_what_is_current_changes_nothing(tmp_path: Path) -> None:
    """A job killed after publishing and rerun makes no second generation."""
    made = publish_next(tmp_path, OLD)
    assert publish_next(tmp_path, OLD, note="again") == made
    assert read_publication(tmp_path) == made


def test_a_publisher_that_saw_another_generation_is_refused(tmp_path: Path) -> None:
    """Compare and swap; nothing changes."""
    publish_next(tmp_path, OLD)
    for expected in (0, 2):
        with pytest.raises(StaleGenerationError):
            publish_bytes(tmp_path, NEW, expected_generation=expected)
    assert content_of(tmp_path) == OLD


def test_a_damaged_copy_of_the_artifact_is_written_again(tmp_path: Path) -> None:
    """An artifact under its digest is trusted only after reading it."""
    (tmp_path / f"{hashlib.sha256(NEW).hexdigest()}.onnx").write_bytes(NEW[:100])
    publish_next(tmp_path, NEW)
    assert content_of(tmp_path) == NEW


def test_publish_checks_the_file_as_a_bidder_would(tmp_path: Path) -> None:
    """A damaged file, a missing one, a time without zone: refused before the folder exists."""
    model, folder = tmp_path / "model.onnx", tmp_path / "published"
    write_artifact(complete_blueprint(), model)
    with pytest.raises(ConfigError, match="time zone"):
        publish(folder, model, data_end="2026-11-07")
    with pytest.raises(DataError):
        publish(folder, tmp_path / "none.onnx")
    data = model.read_bytes()
    model.write_bytes(data[:-1])
    with pytest.raises(ArtifactError):
        publish(folder, model)
    assert not folder.exists()
    model.write_bytes(data)
    made = publish(folder, model, data_end="2026-11-07T02:00:00+02:00", key=KEY)
    assert made.current.data_end == "2026-11-07T02:00:00+02:00"
    assert read_publication(folder, key=KEY) == made


# ---- rolling back ----


def test_rollback_is_a_new_generation_of_an_old_artifact(tmp_path: Path) -> None:
    """Twice goes back twice; then nothing is left to go back to."""
    first, second, third = b"1", b"2", b"3"
    for data in (first, second, third):
        publish_next(tmp_path, data, data_end=f"2026-11-0{data.decode()}T00:00:00+00:00")
    assert republish(tmp_path).current.generation == 4
    assert content_of(tmp_path) == second
    rolled = republish(tmp_path, note="still wrong").current
    assert (content_of(tmp_path), rolled.data_end) == (first, "2026-11-01T00:00:00+00:00")
    assert rolled.note == "rollback to generation 1: still wrong"
    with pytest.raises(ConfigError):
        republish(tmp_path)
    assert republish(tmp_path, generation=3).current.generation == 6
    assert content_of(tmp_path) == third
    with pytest.raises(ConfigError, match="knows the generation"):
        republish(tmp_path, generation=99)


def test_rollback_to_a_damaged_artifact_is_refused(tmp_path: Path) -> None:
    """The current one stays."""
    publish_next(tmp_path, OLD)
    publish_next(tmp_path, NEW)
    (tmp_path / f"{hashlib.sha256(OLD).hexdigest()}.onnx").write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        republish(tmp_path)
    assert content_of(tmp_path) == NEW
    with pytest.raises(ConfigError):
        republish(tmp_path / "nothing here")


def test_the_commands_publish_and_roll_back_within_a_second(tmp_path: Path) -> None:
    """From the shell, exit codes included; the rollback's own work is far below a second."""
    folder = tmp_path / "published"
    models = []
    for number, currency in enumerate(("USD", "EUR")):
        models.append(tmp_path / f"{number}.onnx")
        blueprint = complete_blueprint()
        object.__setattr__(blueprint, "currency", currency)
        write_artifact(blueprint, models[-1])

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    for model in models:
        assert command("training.publish", model, "--to", folder).returncode == 0
    stale = command("training.publish", models[0], "--to", folder, "--expected-generation", 1)
    assert (stale.returncode, stale.stdout) == (4, "")
    assert "at generation 1" in stale.stderr
    start = time.perf_counter()
    done = command("training.rollback", folder)
    assert time.perf_counter() - start < 5.0  # the interpreter's start, on a busy machine
    assert json.loads(done.stdout)["generation"] == 3
    start = time.perf_counter()
    republish(folder, generation=2)
    assert time.perf_counter() - start < 1.0
    assert command("training.rollback", tmp_path).returncode == 2
    assert command("training.publish", tmp_path / "none", "--to", folder).returncode == 3


# ---- two publishers at once ----


def race(folder: Path, publishers: int) -> tuple[int, int, set[str]]:
    """(winners, losers, kinds of error) of threads that all saw generation 1."""
    barrier = threading.Barrier(publishers)
    outcomes: list[str] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            publish_bytes(folder, str(number).encode() * 1000, expected_generation=1)
            outcomes.append("")
        except Exception as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(publishers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes.count(""), len(outcomes) - outcomes.count(""), {kind for kind in outcomes if kind}


def test_of_publishers_at_once_one_wins_and_the_others_err(memory: Path) -> None:
    """Every time."""
    for n in range(10):
        folder = memory / str(n)
        publish_next(folder, OLD)
        assert race(folder, 4) == (1, 3, {"StaleGenerationError"})
        assert generation_of(folder) == 2


def test_the_race_would_be_seen_without_the_lock(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: without mutual exclusion more than one says it won."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    for n in range(300):  # as a rule within five; seldom where the machine is busy
        publish_next(memory / str(n), OLD)
        if race(memory / str(n), 4)[0] > 1:
            return
    pytest.fail("300 races without a lock, and never two winners")


def test_a_publisher_that_waits_too_long_is_refused(tmp_path: Path) -> None:
    """The lock's holder hangs: an error, not a wait for ever."""
    publish_next(tmp_path, OLD)
    holder = os.open(tmp_path / writing.LOCK, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(RefusedError, match="one publisher"):
        publish_next(tmp_path, NEW, lock_seconds=0.05)
    os.close(holder)
    assert publish_next(tmp_path, NEW).current.generation == 2


# ---- a fault at every system call ----

Publish = Callable[[Path, bytes], object]


def faults_of(publish: Publish, tmp_path: Path, before: tuple[bytes, ...] = (OLD,)) -> Iterator[str]:
    """What a publisher of NEW does wrong when a call fails: every call, every error, once and for good.

    `before`: what was published already, the last being current.
    """
    count = Fault()
    prepared(tmp_path / "count", before)
    with failing(count):
        publish(tmp_path / "count", NEW)
    assert content_of(tmp_path / "count") == NEW
    for at in range(count.n_calls):
        for error in ERRORS:
            for persistent in (False, True):
                folder = tmp_path / f"{at}-{error}-{persistent}"
                prepared(folder, before)
                fault = Fault(at, error, persistent)
                what = f"{count.names[at]} (call {at}), {errno.errorcode[error]}, persistent: {persistent}"
                for found in outcome(publish, folder, fault, before[-1] if before else None):
                    yield f"{what}: {found}"


def prepared(folder: Path, before: tuple[bytes, ...]) -> None:
    for data in before:
        publish_next(folder, data)


def outcome(publish: Publish, folder: Path, fault: Fault, old: bytes | None) -> list[str]:
    reported = True
    with failing(fault):
        try:
            publish(folder, NEW)
        except (OSError, ArtifactError):
            reported = False
    try:
        found = content_of(folder)
    except (OSError, ArtifactError) as error:
        return [f"torn: {error}"]
    wrong = [] if found in (old, NEW) else ["neither old nor new"]
    if reported and found != NEW:
        wrong.append("success reported falsely")
    if not wrong:  # the fault is gone: the same job, run again, succeeds
        publish_next(folder, NEW)
        if content_of(folder) != NEW or list(folder.glob(".*.part")):
            wrong.append("a rerun does not repair it")
    return wrong


@pytest.mark.parametrize("before", [(), (OLD,)], ids=["first", "next"])
def test_a_fault_at_any_call_leaves_old_or_new(memory: Path, before: tuple[bytes, ...]) -> None:
    """ENOSPC, EIO, EACCES, EINTR at every call, once and persistently; success is never reported falsely."""

    def publish(folder: Path, data: bytes) -> object:
        return publish_bytes(folder, data, expected_generation=len(before))

    assert list(faults_of(publish, memory, before)) == []


def test_a_fault_during_rollback_leaves_old_or_new(memory: Path) -> None:
    """The same law, back to NEW."""
    assert list(faults_of(lambda folder, _: republish(folder), memory, (NEW, OLD))) == []


def test_writes_may_be_short(tmp_path: Path) -> None:
    """A write that takes a part is continued."""
    with short_writes():
        publish_next(tmp_path, NEW)
    assert content_of(tmp_path) == NEW


def _ignoring_errors(folder: Path, data: bytes) -> None:
    with contextlib.suppress(OSError):
        publish_bytes(folder, data, expected_generation=1)


def _manifest_in_place(folder: Path, data: bytes) -> None:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.onnx"
    atomic.write_atomically(path, data)
    manifest = os.open(folder / PUBLICATION_MANIFEST, os.O_WRONLY | os.O_TRUNC)
    text = _manifest_of(data)
    for start in range(0, len(text), 100):
        os.write(manifest, text[start : start + 100])
    os.close(manifest)


def _manifest_first(folder: Path, data: bytes) -> None:
    atomic.write_atomically(folder / PUBLICATION_MANIFEST, _manifest_of(data))
    atomic.write_atomically(folder / f"{hashlib.sha256(data).hexdigest()}.onnx", data)


def _manifest_of(data: bytes) -> bytes:
    release = Release(2, hashlib.sha256(data).hexdigest(), len(data), None, "2026-11-07T00:00+00:00")
    return Publication(release).to_bytes()


def _short_write_unseen(folder: Path, data: bytes) -> None:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.onnx"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(file, data[: len(data) // 2])
    os.write(file, data[len(data) // 2 :])
    os.close(file)
    atomic.write_atomically(folder / PUBLICATION_MANIFEST, _manifest_of(data))


@pytest.mark.parametrize(
    ("twin", "fault"),
    [
        (_ignoring_errors, "success reported falsely"),
        (_manifest_in_place, "torn"),
        (_manifest_first, "torn"),
    ],
)
def test_the_fault_check_catches_broken_publishers(memory: Path, twin: Publish, fault: str) -> None:
    """Each twin has one flaw; the check names it."""
    assert any(fault in found for found in faults_of(twin, memory))


# ---- a power cut at every system call ----


def cuts_of(publish: Publish, tmp_path: Path) -> list[str]:
    """What a power cut after any call of a publisher may leave that is neither old nor new."""
    folder, left = tmp_path / "folder", tmp_path / "left"
    publish_next(folder, OLD)
    disk = PowerCuts(folder)
    seen: list[dict[str, bytes]] = []
    with disk.recorded(lambda: seen.extend(disk.states())):
        publish(folder, NEW)
    wrong = []
    for states, allowed in ((seen, (OLD, NEW)), (list(disk.states()), (NEW,))):
        for state in states:
            materialise(state, left)
            try:
                found = content_of(left)
            except (OSError, ArtifactError) as error:
                wrong.append(f"torn: {error}")
                continue
            if found not in allowed:
                wrong.append("lost" if allowed == (NEW,) else "neither")
    assert len(seen) > 10
    return wrong


def test_a_power_cut_leaves_old_or_new_and_after_success_new(tmp_path: Path) -> None:
    """Content is forced to the disk before its name, the artifact before the manifest, all before success."""
    assert cuts_of(lambda folder, data: publish_bytes(folder, data, expected_generation=1), tmp_path) == []


def _without(function: str) -> Publish:
    def publish(folder: Path, data: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if function == "sync of content":
                patch.setattr(atomic, "_sync", os.close)
                patch.setattr(atomic, "sync_folder", lambda _: _sync_only_folder(folder))
            else:
                patch.setattr(atomic, "sync_folder", lambda _: None)
            publish_bytes(folder, data, expected_generation=1)

    return publish


def _sync_only_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


@pytest.mark.parametrize(
    ("twin", "fault"),
    [
        (_without("sync of content"), "torn"),
        (_without("sync of names"), "lost"),
        (_manifest_first, "torn"),
        (_short_write_unseen, "torn"),
    ],
)
def test_the_power_cut_check_catches_broken_publishers(tmp_path: Path, twin: Publish, fault: str) -> None:
    """A missing fsync is invisible until the power fails."""
    assert any(fault in found for found in cuts_of(twin, tmp_path))


# ---- kill -9 ----


def killed(folder: Path, kills: int, publisher: str) -> dict[str, int]:
    program = [sys.executable, str(Path(__file__).with_name("kill_publishers.py"))]
    found = subprocess.run(
        [*program, str(folder), str(kills), str(random.Random(0).randrange(10**6)), publisher],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    counts: dict[str, int] = json.loads(found.stdout)
    return counts


def test_killed_publishers_leave_no_torn_publication(tmp_path: Path) -> None:
    """SIGKILL at random instants; a reader reads all the while. BIDML_LONG_TESTS=1: 3,000 kills."""
    kills = 3000 if LONG else 200
    counts = killed(tmp_path / "sound", kills, "sound")
    assert (counts["kills"], counts["torn"]) == (kills, 0)
    assert counts["reads"] > 10 * kills
    assert counts["generations"] > kills / 20
    assert list((tmp_path / "sound").glob("*.onnx"))
    publish_next(tmp_path / "sound", NEW)
    assert not list((tmp_path / "sound").glob(".*.part"))


@pytest.mark.parametrize("twin", ["torn", "early"])
def test_the_kill_check_catches_broken_publishers(tmp_path: Path, twin: str) -> None:
    """A manifest written in place, a manifest before its artifact."""
    assert killed(tmp_path, 200, twin)["torn"] > 0


@pytest.mark.skipif(not LONG, reason="BIDML_LONG_TESTS=1: strace makes real system calls fail, one run each")
@pytest.mark.parametrize(
    "call", ["openat", "write", "fsync", "rename", "close", "flock", "unlink", "mkdir", "read", "newfstatat"]
)
def test_a_failing_system_call_leaves_old_or_new(tmp_path: Path, call: str) -> None:
    """The same law with the kernel's own calls (strace -e inject), wherever in the process they are.

    Not EINTR for good: Python itself repeats an interrupted call for as long as it is interrupted (PEP 475).
    """
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom types import SimpleNamespace\nfrom bidml import atomic\n"
        # so that strace can be told the names of the files in the making
        "os.getpid = lambda: 1\natomic.threading = SimpleNamespace(get_ident=os.getpid)\n"
        "from training.publication import publish_bytes\n"
        "publish_bytes(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), expected_generation=1)\nprint('published')\n"
    )
    data = tmp_path / "data"
    data.write_bytes(NEW)
    n_struck = 0
    for error in ("ENOSPC", "EIO", "EACCES", "EINTR"):
        for when in [*map(str, range(1, 13)), *(["1+", "2+", "4+"] if error != "EINTR" else [])]:
            folder = tmp_path / f"{error}-{when}"
            publish_next(folder, OLD)
            inject = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(folder)]
            artifact = f"{hashlib.sha256(NEW).hexdigest()}.onnx"
            for name in (PUBLICATION_MANIFEST, artifact):
                inject += ["-P", str(folder / name), "-P", str(folder / f".{name}.1.1.part")]
            inject += ["-P", str(folder / writing.LOCK)]
            inject += ["-e", f"inject={call}:error={error}:when={when}"]
            done = subprocess.run(
                [*inject, sys.executable, "-c", program, str(folder), str(data)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            n_struck += "INJECTED" in (tmp_path / "trace").read_text()
            found = content_of(folder)
            assert found in (OLD, NEW)
            if "published" in done.stdout:
                assert found == NEW
    assert n_struck or call in ("mkdir", "read", "unlink")


def test_the_list_of_calls_is_what_publishing_uses(tmp_path: Path) -> None:
    """Every kind of call that the faults strike occurs, so that none is listed in vain."""
    count = Fault()
    with failing(count):
        publish_bytes(tmp_path / "new" / "folder", OLD, expected_generation=0)
        (tmp_path / "new" / "folder" / ".x.part").write_bytes(b"")
        publish_bytes(tmp_path / "new" / "folder", NEW, expected_generation=1)
    assert {name for _, name in CALLS} == set(count.names)
