"""How fast the ``logs`` connector finds and redacts people in log files of every compression."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Report, WrongResult, interleaved
from benchmarks.logs.data import ACTIVE, POPULATION, SUFFIXES, Size, active, email, generate
from benchmarks.logs.ours import PROCESSES, find, lines, peak, redact, seconds
from benchmarks.logs.peers import contents, numbers, recompress, search
from connectors.logs.codecs import Encoder, encoder
from tests.support.servers.debian import require

TITLE = "finding and redacting people in log files, beside ripgrep, zgrep, and recompressing alone"

FULL = Size(files=8, bytes=208_000_000)
"""5 GB: 1.67 GB in each of three compressions."""
SMALL = Size(files=3, bytes=1_500_000)
MANY = 1000
"""People looked for at once."""
LIMIT = 300.0
"""Megabytes of memory that a pass may take, all its processes with interpreter and libraries together."""
PROGRAMS = (
    ("plain", "rg", 0.7),
    ("gzip", "zgrep", 3.0),
    ("gzip", "zgrep, two at a time", None),
    ("zstd", "zstdgrep", None),
)
"""Compression, program, and how many times as fast as it we mean to be."""


@dataclass(frozen=True)
class Scene:
    """The files, and who is looked for in them."""

    folder: Path
    size: Size
    rounds: int
    many: Sequence[int]
    one: int

    @property
    def root(self) -> Path:
        """Where the files are."""
        return self.folder / "logs"

    @property
    def patterns(self) -> Path:
        """The addresses, for the programs."""
        return self.folder / "patterns"

    def files(self, kind: str, root: Path | None = None) -> list[Path]:
        """The files of one compression."""
        return [(root or self.root) / f"app.{n}.jsonl{SUFFIXES[kind]}" for n in range(self.size.files)]

    def speed(self, took: float) -> float:
        """Megabytes a second, of the files of one compression before compression."""
        return self.size.of_a_kind / took / 1e6


def run(folder: Path, *, small: bool) -> Report:
    """Find, compare, redact, compare; see ``Benchmark``."""
    for package in ("ripgrep", "zstd"):
        require(package)
    many = random.Random("people").sample(range(POPULATION), MANY)
    one = next(person for person in many if person in set(active(0)))
    scene = Scene(folder, SMALL if small else FULL, 1 if small else 3, many, one)
    scene.patterns.write_text("".join(f"{email(person)}\n" for person in many), encoding="ascii")
    generate(scene.root, scene.size)
    matched = _same_lines(scene)
    figures = [*_finding(scene, matched), *(f for kind in SUFFIXES for f in _redacting(scene, kind, matched))]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        most = pool.submit(peak, scene.root, folder / "copy", many).result()
    figures.append(Figure(f"memory for finding and redacting {MANY:,}", "MB", [most], "limit", [LIMIT], at_most=1))
    return Report(settings=_settings(scene, matched), figures=figures, notes=(_NOTE, _rewritten_for_one(scene)))


_NOTE = (
    "Speeds are of uncompressed bytes, and files are in the page cache. We find lines whose parsed field is the "
    "person's; the programs find the same lines, for no address is part of another. A rewrite, and the recompressing "
    "beside it (same library, same level, as a stream, two files at a time), ends on the disk."
)


def _settings(scene: Scene, matched: int) -> dict[str, str]:
    size = scene.size
    return {
        "files": f"{size.files} of {size.bytes / 1e6:g} MB, each plain, as gzip -6 and as zstd -3, together "
        f"{3 * size.of_a_kind / 1e9:.3g} GB before compression; {ACTIVE:,} of {POPULATION:,} people in each",
        "looked for": f"{MANY:,} e-mail addresses, on {matched:,} lines of each compression",
        "processes": str(PROCESSES),
        "rg": "--threads 2",
        "rounds": str(scene.rounds),
    }


def _same_lines(scene: Scene) -> int:
    """Check that we find the very lines that ripgrep finds, in every compression; returns how many."""
    expected = numbers(scene.patterns, scene.files("plain"))
    for kind, suffix in SUFFIXES.items():
        found = [(name.removesuffix(suffix), line) for name, line in lines(scene.root, kind, scene.many)]
        if found != expected:
            raise WrongResult(f"in {kind} files {len(found)} lines were found, and {len(expected)} by rg")
    return len(expected)


def _finding(scene: Scene, matched: int) -> list[Figure]:
    """Figures about searching."""

    def ours(kind: str, people: Sequence[int], expected: int | None = None) -> float:
        found = list[int]()
        took = seconds(lambda: found.append(find(scene.root, kind, people)))
        if found[0] != expected and expected is not None:
            raise WrongResult(f"{found[0]} lines are found in {kind} files, not {expected}")
        return took

    def theirs(program: str, kind: str) -> float:
        took = seconds(lambda: search(program, scene.patterns, scene.files(kind), scene.folder / "found"))
        if (found := (scene.folder / "found").read_bytes().count(b"\n")) != matched:
            raise WrongResult(f"{program} finds {found} lines in {kind} files, not {matched}")
        return scene.speed(took)

    figures, took = list[Figure](), dict[str, tuple[list[float], list[float]]]()
    for kind in SUFFIXES:
        beside = [(program, target) for of, program, target in PROGRAMS if of == kind]
        many, one, *others = interleaved(
            scene.rounds,
            partial(ours, kind, scene.many, matched),
            partial(ours, kind, [scene.one]),
            *(partial(theirs, program, kind) for program, _ in beside),
        )
        took[kind] = (many, one)
        speeds = [scene.speed(s) for s in many]
        figures += [
            Figure(f"finding {MANY:,} in {kind} files", "MB/s", speeds, f"{program} -F -f", other, at_least=target)
            for (program, target), other in zip(beside, others, strict=True)
        ]
    return [*figures, _many_beside_one(took)]


def _many_beside_one(took: dict[str, tuple[list[float], list[float]]]) -> Figure:
    many, one = ([sum(s) for s in zip(*(both[i] for both in took.values()), strict=True)] for i in (0, 1))
    each = ", ".join(f"{kind} {median(both[0]) / median(both[1]):.2g}" for kind, both in took.items())
    return Figure(f"finding {MANY:,} in all files (ratios: {each})", "s", many, "finding one", one, at_most=3)


def _redacting(scene: Scene, kind: str, matched: int) -> Iterator[Figure]:
    """Figures about rewriting files of one compression."""
    copy, other = scene.folder / "copy", scene.folder / "recompressed"

    def ours() -> float:
        _fresh(scene, kind, copy)
        redacted = list[int]()
        took = seconds(lambda: redacted.append(redact(copy, kind, scene.many)))
        if redacted[0] != matched or find(copy, kind, scene.many):
            raise WrongResult(f"{redacted[0]} lines were redacted in {kind} files, not {matched}")
        return scene.speed(took)

    def theirs(encoder_of: Callable[[str], Encoder] | None = None) -> float:
        other.mkdir()
        os.sync()
        took = seconds(lambda: recompress(scene.files(kind), other, encoder_of))
        shutil.rmtree(other)
        return scene.speed(took)

    speeds, beside, *framed = interleaved(
        scene.rounds, ours, theirs, *([partial(theirs, encoder)] if kind == "zstd" else [])
    )
    _only_theirs_changed(scene.files(kind)[0], scene.files(kind, copy)[0], scene.many)
    shutil.rmtree(copy)
    figure = partial(Figure, f"redacting {MANY:,} in {kind} files", "MB/s", speeds)
    what = "copying them" if kind == "plain" else "decompressing and compressing them"
    yield figure(what, beside, at_least=None if kind == "plain" else 0.8)
    for speeds_framed in framed:
        yield figure("the same, in frames as ours are", speeds_framed)


def _fresh(scene: Scene, kind: str, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in scene.files(kind):
        shutil.copy(file, copy)
    os.sync()  # what is written later must not wait for these, nor must a program that has its turn then


def _only_theirs_changed(old: Path, new: Path, people: Sequence[int]) -> None:
    """Check a rewritten file, byte by byte, against what a regular expression makes of the old one."""
    redacted = {email(person).encode() for person in people}
    fields = re.compile(rb'"user_id": \d+, "email": "([^"]+)"')

    def expected(line: bytes) -> bytes:
        found = fields.search(line)
        if found is None or found[1] not in redacted:
            return line
        return line.replace(found[0], b'"user_id": "[erased]", "email": "[erased]"')

    for before, after in zip(contents(old), contents(new), strict=True):
        if expected(before) != after:
            raise WrongResult(f"a line of {new.name} is not as it should be")


def _rewritten_for_one(scene: Scene) -> str:
    """Check that only files with a match are rewritten; returns what it took, in words."""
    told = []
    for kind in SUFFIXES:
        copy = scene.folder / "copy"
        _fresh(scene, kind, copy)
        before = {file.name: file.stat().st_ino for file in copy.iterdir()}
        took = seconds(partial(redact, copy, kind, [scene.one]))
        rewritten = {file.name for file in copy.glob("app.*") if before[file.name] != file.stat().st_ino}
        shutil.rmtree(copy)
        held = {name for name, _ in lines(scene.root, kind, [scene.one])}
        if rewritten != held:
            raise WrongResult(f"{len(rewritten)} {kind} files were rewritten, and {len(held)} had lines of the person")
        told.append(f"{kind} {took:.2g} s")
    return (
        f"Redacting one person rewrites the {len(held)} of {scene.size.files} files with lines of theirs: "
        + ", ".join(told)
        + "."
    )
