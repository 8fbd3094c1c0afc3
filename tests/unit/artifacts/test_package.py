"""The package holds everything that was gathered, opens anywhere, and runs and reaches nothing."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts.archive import Archive
from orchestrator.artifacts.names import NameBook, safe_name, safe_path
from orchestrator.artifacts.package import About, Part, build_package, open_package, verify_package
from orchestrator.artifacts.records import ArtifactWriter
from orchestrator.core.model import Retention
from orchestrator.errors import VaultError
from orchestrator.privacy.vault import RequestKey

KEY = RequestKey(bytes(range(32)))
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ABOUT = About("018f", "access", "gdpr", NOW, NOW)
PICTURE = bytes(range(256)) * 400


def part(directory, system, fill, **more) -> Part:
    with ArtifactWriter(KEY, f"r1/{system}", directory) as sink:
        fill(sink)
        return Part(system, sink.finish(), f"r1/{system}", NOW, **more)


def build(directory, *parts, **more):
    package = build_package(parts, ABOUT, KEY, "r1/package", directory, **more)
    data = open_package(package.stored, KEY, "r1/package", directory).read()
    return package, zipfile.ZipFile(io.BytesIO(data))


def shop(sink):
    """Collections and files mixed, as a connector may write them."""
    for number in range(3):
        sink.write("orders", {"id": number, "total": "1.10"})
        sink.write("profile", {"name": "<script>alert(1)</script>", "n": number})
    sink.attach("avatars/1.png", [PICTURE])
    sink.write("orders", {"id": 3, "gift": True})


def test_every_record_and_file_is_in_the_package(tmp_path):
    package, archive = build(
        tmp_path, part(tmp_path, "shop", shop), part(tmp_path, "logs", lambda s: s.write("lines", {"l": 1}))
    )
    assert archive.testzip() is None
    orders = [json.loads(line) for line in archive.read("shop/orders.jsonl").splitlines()]
    assert [order["id"] for order in orders] == [0, 1, 2, 3]
    assert len(archive.read("shop/profile.jsonl").splitlines()) == 3
    assert archive.read("shop/attachments/avatars/1.png") == PICTURE
    assert archive.read("logs/lines.jsonl") == b'{"l":1}\n'
    assert package.records == 8
    assert package.files == len(archive.namelist()) == 6


def test_the_index_says_what_there_is_and_what_was_kept_and_why(tmp_path):
    kept = Retention("invoices", "tax law", "GDPR Art. 17(3)(b)", 2, date(2034, 1, 1))
    shop_part = part(tmp_path, "shop", shop, categories=frozenset({"user.name"}), retained=(kept,))
    _, archive = build(tmp_path, shop_part)
    index = json.loads(archive.read("index.json"))
    (system,) = index["systems"]
    assert system["collections"] == [
        {"name": "orders", "file": "shop/orders.jsonl", "records": 4},
        {"name": "profile", "file": "shop/profile.jsonl", "records": 3},
    ]
    assert system["retained"][0]["until"] == "2034-01-01"
    assert system["categories"] == ["user.name"]
    assert index["request_id"] == "018f"
    assert all(file["file"] in archive.namelist() for file in system["collections"] + system["attachments"])
    assert "invoices" in archive.read("index.html").decode()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in {"href", "src"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_runs_and_loads_nothing(tmp_path):
    _, archive = build(tmp_path, part(tmp_path, "shop", shop))
    text = archive.read("index.html").decode()
    page = Page(text)
    assert not page.open
    assert not {"script", "img", "iframe", "link"} & set(page.tags)
    assert "&lt;script&gt;" in text
    assert set(page.links) <= set(archive.namelist())
    assert "default-src 'none'" in text


def test_a_large_collection_is_cut_on_the_page_and_whole_in_its_file(tmp_path):
    def fill(sink):
        for number in range(1500):
            sink.write("events", {"id": f"event-{number}"})

    _, archive = build(tmp_path, part(tmp_path, "a", fill))
    text = archive.read("index.html").decode()
    assert "event-999<" in text
    assert "event-1000<" not in text
    assert "1000 of 1500" in text
    assert len(archive.read("a/events.jsonl").splitlines()) == 1500


def test_a_package_is_verified_by_reading_all_of_it(tmp_path):
    package, _ = build(tmp_path, part(tmp_path, "shop", shop), inline_limit=100)
    assert verify_package(package.stored, KEY, "r1/package", tmp_path) == (package.zip_size, package.zip_digest)
    path = tmp_path / str(package.stored.file)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VaultError):
        verify_package(package.stored, KEY, "r1/package", tmp_path)


def test_other_programs_read_the_archive(tmp_path):
    sizes = [0, 1, 255, 256, 70_000, 1_000_000]
    out = io.BytesIO()
    archive = Archive(out, NOW)
    contents = {f"ä/{size}.txt": (b"0123456789" * (size // 10 + 1))[:size] for size in sizes}
    for path, data in contents.items():
        archive.add(path, [data[i : i + 50_000] for i in range(0, len(data), 50_000)])
    archive.finish()
    assert archive.files == len(sizes)
    with zipfile.ZipFile(out) as read:
        assert {i.filename: read.read(i) for i in read.infolist()} == contents
        assert {i.date_time for i in read.infolist()} == {(2026, 11, 22, 12, 0, 0)}
        assert {i.external_attr >> 16 for i in read.infolist()} == {0o100600}


def test_an_archive_of_no_files_is_one(tmp_path):
    out = io.BytesIO()
    Archive(out, datetime(1970, 1, 1, tzinfo=UTC)).finish()
    assert zipfile.ZipFile(out).namelist() == []


@pytest.mark.parametrize("mixed", [False, True])
def test_a_large_package_holds_every_record_of_every_collection(tmp_path, mixed):
    """Also where a system writes its collections in turns."""
    names, each = ("a", "b", "c"), 5000
    order = [(n, i) for i in range(each) for n in names] if mixed else [(n, i) for n in names for i in range(each)]

    def fill(sink):
        for name, i in order:
            sink.write(name, {"i": i, "text": f"{name}{i}" * 5})

    package, archive = build(tmp_path, part(tmp_path, "s", fill))
    assert archive.testzip() is None
    assert package.records == len(order)
    for name in names:
        assert [json.loads(line)["i"] for line in archive.read(f"s/{name}.jsonl").splitlines()] == list(range(each))


def test_nothing_but_the_package_is_left_behind(tmp_path):
    def fill(sink):
        for number in range(20_000):
            sink.write("events", {"id": number, "x": str(number) * 9})

    folder = tmp_path / "p"
    package, _ = build(folder, part(folder, "a", fill), inline_limit=100)
    names = {path.name for path in folder.iterdir()}
    assert str(package.stored.file) in names
    assert len(names) <= 2
    assert not any(name.endswith(".part") for name in names)
    broken = part(folder, "b", shop)
    with pytest.raises(VaultError):
        build_package([Part("b", broken.artifact, "elsewhere", NOW)], ABOUT, KEY, "x", folder)
    assert {path.name for path in folder.iterdir()} == names


def test_an_empty_package_says_so_by_its_empty_lists(tmp_path):
    _, archive = build(tmp_path, part(tmp_path, "shop", lambda sink: None))
    assert json.loads(archive.read("index.json"))["systems"][0]["collections"] == []


# Names. --------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_a_name_from_a_system_stays_one_harmless_segment(name):
    safe = safe_name(name)
    assert safe
    assert len(safe) <= 101
    assert safe not in {".", ".."}
    assert not set(safe) & set('<>:"|?*\\/\0\n%')
    assert not safe.endswith((" ", "."))
    assert safe_name(safe) == safe or len(safe) > 95


@given(st.lists(st.sampled_from(["..", ".", "", "a", "C:", "con", "\u202e", "~"]), max_size=9).map("/".join))
def test_a_path_from_a_system_stays_inside_its_folder(path):
    safe = PurePosixPath(safe_path(path))
    assert not safe.is_absolute()
    assert ".." not in safe.parts
    assert len(safe.parts) <= 6


@pytest.mark.parametrize(
    "evil", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "C:\\x", "a/../../b", "....//x", "index.html"]
)
def test_no_name_climbs_out_of_the_package(tmp_path, evil):
    def fill(sink):
        sink.attach(evil, [b"x"])
        sink.write(evil, {"a": 1})

    _, archive = build(tmp_path, part(tmp_path, evil, fill))
    archive.extractall(tmp_path / "out" / "in")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in"]


@given(st.lists(st.sampled_from(["a/x", "a/X", "a", "a/x/y", "a-2", "a/x-2", "b.txt", "B.txt"]), max_size=12))
def test_no_two_entries_share_a_path_even_where_case_does_not_count(paths):
    book = NameBook()
    claimed = [book.claim(path).casefold() for path in paths]
    assert len(set(claimed)) == len(claimed)
    assert not any(one.startswith(two + "/") for one in claimed for two in claimed)


def test_two_systems_with_one_safe_name_keep_their_files_apart(tmp_path):
    one = part(tmp_path, "a/b", lambda s: s.write("t", {"n": 1}))
    two = part(tmp_path, "a:b", lambda s: s.write("t", {"n": 2}))
    _, archive = build(tmp_path, one, two)
    contents = {archive.read(name) for name in archive.namelist() if name.endswith(".jsonl")}
    assert contents == {b'{"n":1}\n', b'{"n":2}\n'}
