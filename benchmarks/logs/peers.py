"""What the connector is measured beside: programs that search, and the same libraries that only recompress."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import zstandard
from isal import isal_zlib

from benchmarks.figures import WrongResult
from connectors.logs.chunks import chunks
from connectors.logs.codecs import BLOCK, GZIP_LEVEL, ZSTD_LEVEL, Encoder, encoder, kind_of, reader

COMMANDS = {
    "rg": ("rg", "--no-config", "--threads", "2", "--no-filename", "-F", "-f"),
    "zgrep": ("zgrep", "-h", "-F", "-f"),
    "zgrep, two at a time": ("xargs", "-P", "2", "-n", "1", "zgrep", "-h", "-F", "-f"),
    "zstdgrep": ("zstdgrep", "-h", "-F", "-f"),
}


def search(program: str, patterns: Path, files: Sequence[Path], output: Path) -> None:
    """Have a program write the lines with any of the patterns."""
    command, names = [*COMMANDS[program], str(patterns)], [str(file) for file in files]
    with output.open("wb") as into:
        if command[0] == "xargs":
            _run(command, into.fileno(), "\n".join(names))
        else:
            _run([*command, *names], into.fileno())


def numbers(patterns: Path, files: Sequence[Path]) -> list[tuple[str, int]]:
    """File and number of every line in which ripgrep finds any of the patterns."""
    command = ["rg", "--no-config", "--line-number", "--with-filename", "-F", "-f", str(patterns), *map(str, files)]
    found = [line.split(":", 2) for line in _run(command, subprocess.PIPE).splitlines()]
    return sorted((Path(name).name, int(number)) for name, number, _ in found)


def _run(command: Sequence[str], output: int, given: str = "") -> str:
    done = subprocess.run(
        command,
        input=given.encode(),
        stdout=output,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.stderr:
        raise WrongResult(f"{command[0]}: {done.stderr.decode()}")
    return (done.stdout or b"").decode()


def recompress(files: Sequence[Path], into: Path, encoder_of: Callable[[str], Encoder] | None = None) -> None:
    """Read, decompress, compress and write files, two at a time, with our libraries and levels, down to the disk.

    What a rewrite costs that looks at nothing and changes nothing. Without ``encoder_of`` the libraries compress
    streams, as they are usually asked to.
    """
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(_recompress, encoder_of or _streaming), files, [into / file.name for file in files]))


def _recompress(encoder_of: Callable[[str], Encoder], file: Path, into: Path) -> None:
    kind, buffer = kind_of(file.name), memoryview(bytearray(BLOCK))
    compress = encoder_of(kind)
    with file.open("rb", buffering=0) as old, into.open("wb", buffering=BLOCK) as new:
        read = reader(old, kind, file.name)
        while size := read(buffer):
            new.write(compress.compress(buffer[:size]))
        new.write(compress.flush())
        new.flush()
        os.fsync(new.fileno())


def _streaming(kind: str) -> Encoder:
    """What the libraries have for compressing a stream."""
    if kind == "gzip":
        return cast("Encoder", isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, 31))
    if kind == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return encoder(kind)


def contents(file: Path) -> Iterator[bytes]:
    """The lines of a file, whatever its compression."""
    with file.open("rb", buffering=0) as stream:
        for chunk in chunks(reader(stream, kind_of(file.name), file.name), BLOCK, BLOCK):
            yield from bytes(chunk.buffer[: chunk.end]).splitlines(keepends=True)
