"""Copies of the package with another extension: sanitized, or broken on purpose. Kept below `build/robust`.

Needed: gcc with its sanitizers (libasan, libubsan, libtsan), cmake, ninja, nanobind. A copy is a folder
`<name>/site/bidml` that comes first on the path of a process started with `python -S`, so that the editable
installation stays out of the way. Builds are incremental, and share nanobind, which is neither sanitized nor broken.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "robust"
_NATIVE = "bidml/native"


@dataclass(frozen=True)
class Build:
    """`options` for the compiler and linker; `library` is loaded first; `environment` for its processes."""

    name: str
    options: str
    more_options: str = "-O1 -g1"
    library: str = ""
    environment: Mapping[str, str] | None = None
    has_faults: bool = False

    @property
    def home(self) -> Path:
        return HOME / self.name

    @property
    def site(self) -> Path:
        return self.home / "site"

    @property
    def source(self) -> Path:
        return self.home / "source" / "bidml" / "native"

    @property
    def objects(self) -> Path:
        """The compiled files of `source`."""
        return HOME / "objects" / "CMakeFiles" / f"{self.name}.dir" / str(self.source).lstrip("/")

    def all_options(self) -> list[str]:
        faults = ["-include", str(ROOT / "robust" / "fault.h")] if self.has_faults else []
        return [*self.options.split(), *self.more_options.split(), *faults]

    def process_environment(self, preload: str = "") -> dict[str, str]:
        """The environment of a Python process that uses this build, and loads the shim `preload` first."""
        environment = {**os.environ, "PYTHONPATH": path_of(self.site), **(self.environment or {})}
        libraries = [str(shim(preload))] if preload else []
        if self.library:
            # The C++ library too: a sanitizer that comes before it cannot find its exceptions.
            libraries += [_compiler_file(self.library), _compiler_file("libstdc++.so.6")]
        if libraries:
            environment["LD_PRELOAD"] = " ".join(libraries)
        return environment

    def launcher(self) -> list[str]:
        """What starts a process: without random addresses, where we may; gcc 12's TSan does not know all of them."""
        asked = ["setarch", "-R"]
        if self is not TSAN or subprocess.run([*asked, "true"], capture_output=True).returncode:
            return []
        return asked


# Faults lie dormant in the sanitized builds: one slow build each is enough for the runtime as it is and for its twins.
ASAN = Build(
    "asan",
    "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
    library="libasan.so",
    environment={
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:malloc_context_size=2",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    },
    has_faults=True,
)
TSAN = Build(
    "tsan",
    "-fsanitize=thread",
    library="libtsan.so",
    environment={"TSAN_OPTIONS": "halt_on_error=0:exitcode=66:report_signal_unsafe=0"},
    has_faults=True,
)
PLAIN = Build("plain", "")  # the installed extension, not compiled again
BROKEN = Build("broken", "", more_options="-O0", has_faults=True)  # compiled in half the time of -O1
GCOV = Build("gcov", "--coverage -fno-inline", more_options="-O0")  # of branches.py
BUILDS = {build.name: build for build in (PLAIN, ASAN, TSAN, BROKEN, GCOV)}


def path_of(site: Path) -> str:
    """The import path of a process with `python -S`: a copy's folder, the tools, then the environment's packages."""
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    return os.pathsep.join(map(str, [site, ROOT, ROOT / "tests", ROOT / "tests" / "native", *packages]))


def make(*builds: Build, jobs: int = 2) -> None:
    """Compile `builds` and refresh their copies of the package. Raises `CompilationError` with the compiler's words."""
    compiled = [build for build in builds if build is not PLAIN]
    if compiled:
        _compile(compiled, jobs)
    for build in builds:
        extension = _installed() if build is PLAIN else next(build.home.glob("_native*.so"))
        copy = build.site / "bidml"
        shutil.copytree(
            ROOT / "bidml",
            copy,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("native", "*.so", "__pycache__"),
        )
        partial = copy / "score" / f"{os.getpid()}.partial"
        shutil.copy2(extension, partial)
        partial.replace(copy / "score" / extension.name)  # a process may have the old one mapped


def _installed() -> Path:
    """The extension of this environment: what users run."""
    from bidml.score import _native

    return Path(str(_native.__file__))


def _compile(builds: list[Build], jobs: int) -> None:
    """One project for all of BUILDS (`CMakeLists.txt`): they share nanobind's objects."""
    from robust import faults

    for build in BUILDS.values():  # a source that is missing would fail the configuration
        if build is not PLAIN:
            edits = faults.edits() if build.has_faults else {}
            _mirror(ROOT / _NATIVE, build.source, edits)
    objects = HOME / "objects"
    compiled = [build for build in BUILDS.values() if build is not PLAIN]
    configure = [
        *(_tool("cmake"), "-G", "Ninja", "-S", str(ROOT / "robust"), "-B", str(objects)),
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
        f"-DHOME={HOME}",
        f"-DBUILDS={';'.join(build.name for build in compiled)}",
        *(f"-DOPTIONS_{build.name}={';'.join(build.all_options())}" for build in compiled),
        f"-DBIDML_VERSION={_version()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dnanobind_DIR={_nanobind()}",
    ]
    configured = HOME / "configured"
    if not configured.exists() or configured.read_text() != "\n".join(configure):
        run(configure)
        configured.write_text("\n".join(configure))
    run([_tool("ninja"), "-C", str(objects), "-j", str(jobs), *(build.name for build in builds)])


def _version() -> str:
    """Of the package, which is not imported: it would bring its own extension."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "bidml" / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class CompilationError(Exception):
    """A build failed."""


def run(command: list[str]) -> None:
    """Run a compiler, or raise `CompilationError` with what it says."""
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise CompilationError((found.stdout + found.stderr)[-3_000:])


def shim(name: str) -> Path:
    """The library made of `robust/<name>.c`."""
    source, library = ROOT / "robust" / f"{name}.c", HOME / f"{name}.so"
    HOME.mkdir(parents=True, exist_ok=True)
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        partial = library.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        run(["gcc", "-O1", "-shared", "-fPIC", "-Wall", str(source), "-o", str(partial)])
        partial.replace(library)
    return library


def _mirror(source: Path, target: Path, edits: Mapping[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in source.iterdir() if path.suffix in (".h", ".cc")}
    for stale in target.iterdir():
        if stale.name not in names:
            stale.unlink()
    for name in names:
        _write_if_new(target / name, edits.get(name) or (source / name).read_text())


def _write_if_new(path: Path, text: str) -> None:
    """Leaves the time stamp of what has not changed."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _nanobind() -> str:
    import nanobind

    return str(nanobind.cmake_dir())


def _compiler_file(name: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not os.path.isabs(path):
        raise CompilationError(f"the compiler has no {name}: install gcc's sanitizers")
    return path
