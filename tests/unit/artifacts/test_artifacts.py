"""What connectors gathered comes back as it was, lies sealed on disk, and can't be altered unnoticed."""

from __future__ import annotations

import hashlib
import io
import stat
import tracemalloc
import zlib
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.artifacts.pieces import LAST, Piece, deflate, read_pieces
from orchestrator.artifacts.records import ArtifactWriter
from orchestrator.artifacts.spool import Spool, Stored, open_stored, remove_stored, sweep_unfinished
from orchestrator.artifacts.stream import CHUNK, SealingWriter, UnsealingReader
from orchestrator.errors import NotFound, VaultError
from orchestrator.privacy.vault import RequestKey

KEY = RequestKey(bytes(range(32)))
BLOCK = CHUNK + 16
HEAD = 18


def seal(data: bytes) -> bytes:
    out = io.BytesIO()
    writer = SealingWriter(out, KEY, "p")
    writer.write(data)
    writer.finish()
    return out.getvalue()


def unseal(sealed: bytes, key=KEY, aad="p") -> bytes:
    return io.BufferedReader(UnsealingReader(io.BytesIO(sealed), key, aad)).read()


# The sealed stream. --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_a_stream_comes_back_as_it_was(size):
    data = bytes(i % 251 for i in range(size))
    assert unseal(seal(data)) == data


@given(st.lists(st.binary(max_size=40_000), max_size=8))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_it_does_not_matter_in_which_pieces_it_was_written(pieces):
    out = io.BytesIO()
    writer = SealingWriter(out, KEY, "p")
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    assert unseal(out.getvalue()) == b"".join(pieces)


THREE = seal(b"a" * CHUNK + b"b" * CHUNK + b"c" * CHUNK)
BLOCKS = [THREE[HEAD + i * BLOCK : HEAD + (i + 1) * BLOCK] for i in range(3)]


@pytest.mark.parametrize(
    "tampered",
    [
        THREE[:-1],
        THREE[: HEAD + 2 * BLOCK],
        THREE[: HEAD + BLOCK],
        THREE[:HEAD],
        THREE[:5],
        b"",
        THREE + b"x",
        THREE + BLOCKS[2],
        THREE[:HEAD] + BLOCKS[1] + BLOCKS[0] + BLOCKS[2],
        THREE[:HEAD] + BLOCKS[0] + BLOCKS[0] + BLOCKS[1] + BLOCKS[2],
        THREE[:HEAD] + BLOCKS[0] + BLOCKS[2],
        seal(b"d" * CHUNK)[:HEAD] + BLOCKS[2],
        b"\x53\x02" + THREE[2:],
    ],
    ids=["cut", "chunk lost", "two lost", "all lost", "head cut", "empty", "longer", "last twice", "swapped",
         "repeated", "middle lost", "other stream's", "other version"],
)  # fmt: skip
def test_a_stream_that_was_cut_reordered_or_joined_is_found_out(tampered):
    with pytest.raises(VaultError):
        unseal(tampered)


@given(st.integers(0, len(THREE) - 1), st.integers(1, 255))
def test_any_changed_byte_of_a_stream_is_found_out(position, flip):
    changed = bytearray(THREE)
    changed[position] ^= flip
    with pytest.raises(VaultError):
        unseal(bytes(changed))


def test_a_stream_does_not_open_under_another_key_or_for_another_place():
    for key, aad in ((RequestKey(bytes(32)), "p"), (KEY, "q")):
        with pytest.raises(VaultError):
            unseal(THREE, key, aad)


# Records and files. --------------------------------------------------------------------------------------------------


def gather(directory, fill, inline_limit=256 * 1024):
    with ArtifactWriter(KEY, "r1/3", directory, inline_limit) as sink:
        fill(sink)
        return sink.finish()


def read(artifact, directory) -> list[Piece]:
    return list(read_pieces(artifact.stored, KEY, "r1/3", directory))


def records(pieces, collection):
    return [record for p in pieces if not p.is_file and p.name == collection for record in p.records()]


VALUES = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=4
)


@given(st.lists(st.tuples(st.sampled_from(["orders", "profile", "ädresses/../x"]), VALUES), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_records_of_each_collection_come_back_in_order(tmp_path, given):
    artifact = gather(tmp_path, lambda sink: [sink.write(name, values) for name, values in given])
    pieces = read(artifact, tmp_path)
    for collection in {name for name, _ in given}:
        assert records(pieces, collection) == [values for name, values in given if name == collection]
    assert artifact.records == len(given) == sum(p.count for p in pieces)
    assert artifact.stored.inline is not None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.sampled_from("xyz")), min_size=1, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_the_pieces_of_a_collection_are_one_deflate_stream_with_the_checksum_of_the_last(tmp_path, written):
    """Whether records come one by one or as lines, a few bytes at a time or many."""

    def fill(sink):
        for whole, length, name in written:
            lines = b'{"n":"%s"}\n' % (name.encode() * length * (97 if whole else 1))
            sink.lines(name, lines * (9 if whole else 1), 9 if whole else 1)
            sink.write(name, {"n": name})

    pieces = read(gather(tmp_path, fill), tmp_path)
    for name in {name for _, _, name in written}:
        own = [p for p in pieces if p.name == name]
        whole = zlib.decompressobj(-zlib.MAX_WBITS).decompress(b"".join(p.packed for p in own) + LAST)
        assert whole == b"".join(p.data() for p in own)
        assert zlib.crc32(whole) == own[-1].crc
        assert len(whole.splitlines()) == sum(p.count for p in own)


def test_a_piece_that_holds_more_than_it_says_is_not_unpacked_further():
    bomb = Piece("t", is_file=False, count=1, size=10, crc=0, packed=deflate(b"0" * 1_000_000))
    assert bomb.data() == b"0" * 10
    short = Piece("t", is_file=False, count=1, size=10, crc=0, packed=deflate(b"0" * 9))
    with pytest.raises(VaultError):
        short.data()


def test_files_come_back_byte_for_byte_between_records(tmp_path):
    picture = bytes(range(256)) * 1000

    def fill(sink):
        sink.write("profile", {"id": 1})
        sink.attach("avatar.png", (picture[i : i + 1000] for i in range(0, len(picture), 1000)))
        sink.attach("empty.txt", [])
        sink.write("profile", {"id": 2})

    artifact = gather(tmp_path, fill)
    pieces = read(artifact, tmp_path)
    assert b"".join(p.data() for p in pieces if p.is_file and p.name == "avatar.png") == picture
    assert "empty.txt" in {p.name for p in pieces if p.is_file}
    assert [r["id"] for r in records(pieces, "profile")] == [1, 2]
    assert artifact.attachments == {"avatar.png": len(picture), "empty.txt": 0}


def test_values_that_databases_give_are_kept_readable(tmp_path):
    values = {
        "at": datetime(2026, 1, 2, tzinfo=UTC), "on": date(2026, 1, 2), "sum": Decimal("1.10"), "id": UUID(int=1),
        "raw": b"\x00\x01", "tags": {"b", "a"}, "rate": float("nan"), "bad": "\ud800",
    }  # fmt: skip
    artifact = gather(tmp_path, lambda sink: sink.write("t", values))
    assert records(read(artifact, tmp_path), "t")[0] == {
        "at": "2026-01-02T00:00:00+00:00", "on": "2026-01-02", "sum": "1.10", "id": str(UUID(int=1)), "raw": "AAE=",
        "tags": ["a", "b"], "rate": "nan", "bad": "?",
    }  # fmt: skip


def test_a_value_that_json_does_not_take_is_refused_by_its_class_alone(tmp_path):
    with pytest.raises(TypeError, match="object"):
        gather(tmp_path, lambda sink: sink.write("t", {"x": object()}))


def many(sink, count=30_000):
    for number in range(count):
        sink.write("events", {"n": number, "noise": hashlib.sha256(str(number).encode()).hexdigest()})


def test_beyond_the_limit_it_lies_in_a_private_file_whose_bytes_tell_nothing(tmp_path):
    folder = tmp_path / "artifacts"
    artifact = gather(folder, many)
    assert artifact.stored.inline is None
    (path,) = folder.iterdir()
    assert path.name == artifact.stored.file
    assert path.stat().st_size == artifact.stored.size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"events" not in path.read_bytes()
    assert sum(p.count for p in read(artifact, folder)) == 30_000
    remove_stored(artifact.stored, folder)
    with pytest.raises(NotFound):
        open_stored(artifact.stored, folder)


def test_a_failed_attempt_leaves_no_file(tmp_path):
    def fail(sink):
        many(sink)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        gather(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_is_swept_and_nothing_else(tmp_path):
    kept = gather(tmp_path, many).stored
    spool = Spool(tmp_path, limit=10)
    spool.write(b"x" * 100)
    assert sweep_unfinished(tmp_path, older_than=0) == 0
    assert sweep_unfinished(tmp_path, older_than=2**40) == 1
    assert [path.name for path in tmp_path.iterdir()] == [kept.file]


def test_writing_and_reading_take_little_memory_however_much_there_is(tmp_path):
    def peak(count: int) -> int:
        tracemalloc.start()
        artifact = gather(tmp_path, lambda sink: many(sink, count))
        for piece in read_pieces(artifact.stored, KEY, "r1/3", tmp_path):
            piece.data()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    assert peak(40_000) < 4_000_000


@pytest.mark.parametrize("name", ["../../etc/passwd", "x.sealed", "", "a" * 32 + ".sealed/../../x"])
def test_a_file_name_that_is_not_ours_is_not_opened(tmp_path, name):
    with pytest.raises(NotFound):
        open_stored(Stored(1, "", file=name), tmp_path)


def test_a_tampered_artifact_raises_before_or_at_its_end(tmp_path):
    artifact = gather(tmp_path, many)
    path = tmp_path / str(artifact.stored.file)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(VaultError):
        read(artifact, tmp_path)
