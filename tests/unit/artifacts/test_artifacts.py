"""What connectors gathered comes back as it was, lies sealed on disk, and can't be altered unnoticed."""

from __future__ import annotations

import hashlib
import io
import itertools
import stat
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.artifacts.records import ArtifactWriter, FilePiece, Record, read_artifact
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


def read(artifact, directory):
    return list(read_artifact(artifact.stored, KEY, "r1/3", directory))


VALUES = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=4
)


@given(st.lists(st.tuples(st.sampled_from(["orders", "profile", "ädresses/../x"]), VALUES), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_come_back_in_order_with_their_collections(tmp_path, records):
    artifact = gather(tmp_path, lambda sink: [sink.write(name, values) for name, values in records])
    assert [(r.collection, r.values) for r in read(artifact, tmp_path)] == records
    assert artifact.records == len(records)
    assert artifact.stored.inline is not None


def test_files_come_back_byte_for_byte_between_records(tmp_path):
    picture = bytes(range(256)) * 1000

    def fill(sink):
        sink.write("profile", {"id": 1})
        sink.attach("avatar.png", (picture[i : i + 1000] for i in range(0, len(picture), 1000)))
        sink.attach("empty.txt", [])
        sink.write("profile", {"id": 2})

    artifact = gather(tmp_path, fill)
    items = read(artifact, tmp_path)
    assert b"".join(i.data for i in items if isinstance(i, FilePiece) and i.name == "avatar.png") == picture
    assert [i.values["id"] for i in items if isinstance(i, Record)] == [1, 2]
    assert artifact.attachments == {"avatar.png": len(picture), "empty.txt": 0}


def test_values_that_databases_give_are_kept_readable(tmp_path):
    values = {
        "at": datetime(2026, 1, 2, tzinfo=UTC), "on": date(2026, 1, 2), "sum": Decimal("1.10"), "id": UUID(int=1),
        "raw": b"\x00\x01", "tags": {"b", "a"}, "rate": float("nan"), "bad": "\ud800",
    }  # fmt: skip
    artifact = gather(tmp_path, lambda sink: sink.write("t", values))
    assert read(artifact, tmp_path)[0].values == {
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
    assert sum(1 for _ in read_artifact(artifact.stored, KEY, "r1/3", folder)) == 30_000
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
        for _ in itertools.islice(read_artifact(artifact.stored, KEY, "r1/3", tmp_path), count):
            pass
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
