"""Parts of the services by themselves: limits, cursors, passwords, texts, work in the store, rebuilding."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from site_harness import PASSWORD, SECRET, FakeMachine, cheap_passwords, made_record

from frontend.database import photos as photo_table
from frontend.database.engine import Database
from frontend.database.migrating import migrate
from frontend.database.paging import Position
from frontend.database.people import User
from frontend.database.uploads import due_removals
from frontend.records import Record
from frontend.services.cursors import Cursors
from frontend.services.errors import Conflict, Invalid, NotFound, NotLoggedIn, TooMany
from frontend.services.limits import Limits, Rule
from frontend.services.names import clean_tags, clean_text, clean_username, parse_photo_id, photo_id_text
from frontend.services.photos import Changes
from frontend.services.pictures import choose_format
from frontend.services.rebuilding import StoredRecord, rebuild
from frontend.services.site import Site, open_site
from frontend.services.uploads import Wish
from frontend.tickets import Ticket
from frontend.web.who import network_of
from haystack.config import FrontendSettings
from haystack.fid import Fid

RULE = Rule("r", 5, 10)


class TestLimits:
    def test_so_many_at_once_then_one_after_the_other(self) -> None:
        now = 0.0
        limits = Limits(now=lambda: now)
        assert [limits.take(RULE, "a").remaining for _ in range(5)] == [4, 3, 2, 1, 0]
        with pytest.raises(TooMany) as refused:
            limits.take(RULE, "a")
        assert refused.value.retry_after_seconds == 2
        limits.take(RULE, "b")
        now = 2.0
        assert limits.take(RULE, "a").reset_seconds == 10
        with pytest.raises(TooMany):
            limits.take(RULE, "a")

    @given(st.lists(st.floats(0, 3), max_size=60))
    def test_never_more_than_twice_the_rule_in_any_window(self, pauses: list[float]) -> None:
        now, taken = 0.0, []
        limits = Limits(now=lambda: now)
        for pause in pauses:
            now += pause
            try:
                limits.take(RULE, "a")
            except TooMany:
                continue
            taken.append(now)
        for begin in taken:
            assert sum(begin <= one < begin + RULE.window_seconds for one in taken) <= 2 * RULE.count

    def test_memory_is_bounded(self) -> None:
        limits = Limits(max_keys=10, now=lambda: 0.0)
        for number in range(100):
            limits.take(RULE, str(number))
        assert len(limits._full_at) == 10


class TestCursors:
    cursors = Cursors(SECRET)

    @given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
    def test_they_come_back(self, number: int, photo_id: int, scope: str) -> None:
        position = Position(number, photo_id)
        text = self.cursors.write(scope, position)
        assert text is not None and self.cursors.read(scope, text) == position
        with pytest.raises(Invalid):
            self.cursors.read(scope + "x", text)

    @given(st.data())
    def test_nobody_changes_them(self, data: st.DataObject) -> None:
        text = self.cursors.write("feed", Position(1, 2))
        assert text is not None
        at = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.characters(codec="ascii", exclude_characters=text[at]))
        changed = text[:at] + other + text[at + 1 :]
        with pytest.raises(Invalid):
            self.cursors.read("feed", changed)

    @pytest.mark.parametrize(("character", "instead"), [("-", "+"), ("_", "/"), ("Q", "R")])
    def test_no_other_text_for_the_same_bytes_is_one(self, character: str, instead: str) -> None:
        cursors = (self.cursors.write("feed", Position(1, number)) for number in range(10_000))
        text = next(text for text in cursors if text and character in text[-1 if character == "Q" else 0 :])
        at = text.rindex(character)
        with pytest.raises(Invalid):
            self.cursors.read("feed", text[:at] + instead + text[at + 1 :])

    @given(st.text(max_size=60))
    def test_what_is_none_is_refused(self, text: str) -> None:
        if text:
            with pytest.raises(Invalid):
                self.cursors.read("feed", text)


class TestNames:
    @given(st.text(max_size=300))
    def test_texts_have_nothing_that_cannot_be_seen(self, text: str) -> None:
        cleaned = clean_text(text, "caption", 10_000)
        cleaned.encode("utf-8")
        assert "\0" not in cleaned and clean_text(cleaned, "caption", 10_000) == cleaned

    @given(st.integers(0, 2**63 - 1))
    def test_ids_come_back(self, photo_id: int) -> None:
        assert parse_photo_id(photo_id_text(photo_id)) == photo_id

    @pytest.mark.parametrize("text", ["", "g", "1" * 17, "f" * 16, "-1", "0x1", " 1", "1\n"])
    def test_what_is_no_id(self, text: str) -> None:
        with pytest.raises(NotFound):
            parse_photo_id(text)

    def test_tags(self) -> None:
        assert clean_tags(["#Sea", " sea ", "Über_uns", ""]) == ("sea", "über_uns")
        for wrong in (["a b"], ["x" * 51], [f"t{number}" for number in range(31)], ["a\0"]):
            with pytest.raises(Invalid):
                clean_tags(wrong)

    @pytest.mark.parametrize("name", ["ab", "x" * 31, "a-b", "admin", "ä12", "a\0bc", "me"])
    def test_what_is_no_user_name(self, name: str) -> None:
        with pytest.raises(Invalid):
            clean_username(name)

    def test_formats(self) -> None:
        there = ("avif", "webp", "jpeg")
        assert choose_format("image/avif,image/webp,*/*", there) == "avif"
        assert choose_format("image/webp;q=0.8", there) == "webp"
        assert choose_format("image/avif;q=0, image/webp", there) == "webp"
        assert choose_format("image/avif", ("webp", "jpeg")) == choose_format("*/*", there) == "jpeg"


@pytest.mark.parametrize(
    "address, key",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("unknown" * 20, ("unknown" * 20)[:64]),
    ],
)
def test_limits_count_networks_of_ipv6(address: str, key: str) -> None:
    assert network_of(address) == key


async def test_odd_characters_find_nothing(tmp_path: Path) -> None:
    async with site_of(tmp_path) as (site, _):
        for query in ("a\0b", "from:x\0y", "tag:\0a", "@\0 z"):
            assert (await site.lists.search(None, query, None, 5)).page.items == ()
        with pytest.raises(NotLoggedIn):
            await site.accounts.log_in("al\0ice", "password", "a")


async def test_work_that_fails_oddly_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with site_of(tmp_path) as (site, _):

        async def break_down() -> bool:
            raise ZeroDivisionError

        assert await site.housekeeping._guarded(break_down) is False
    assert "ZeroDivisionError" in caplog.text


async def test_passwords() -> None:
    passwords = cheap_passwords()
    try:
        kept = await passwords.hash("right")
        assert kept.startswith("$argon2id$") and await passwords.matches(kept, "right")
        assert not await passwords.matches(kept, "wrong")
        assert not await passwords.matches(None, "right")
        assert not await passwords.matches("no hash", "right")
    finally:
        passwords.close()


async def test_nobody_learns_from_the_work_whether_there_is_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site_of(tmp_path) as (site, _):
        await add_user(site, "alice")
        done: list[int] = []
        verify = site.passwords._verify

        def counted(kept: str, password: str) -> bool:
            done.append(len(kept))
            return verify(kept, password)

        monkeypatch.setattr(site.passwords, "_verify", counted)
        for login in ("alice", "nobody_here"):
            with pytest.raises(NotLoggedIn):
                await site.accounts.log_in(login, "wrong password", "a")
        assert len(done) == 2 and done[0] == done[1]


@contextmanager
def database_in(folder: Path, name: str = "photos.db") -> Iterator[Database]:
    database = Database(f"sqlite:///{folder}/{name}")
    migrate(database)
    try:
        yield database
    finally:
        database.close()


@asynccontextmanager
async def site_of(folder: Path) -> AsyncIterator[tuple[Site, FakeMachine]]:
    machine = FakeMachine()
    server = TestServer(machine.app())
    await server.start_server()
    machine.address = f"{server.host}:{server.port}"
    settings = FrontendSettings(
        database=f"sqlite:///{folder}/photos.db",
        secret=SECRET,
        rate_limits="off",
        directories=(f"http://{machine.address}",),
    )
    try:
        with database_in(folder) as database:
            async with open_site(settings, database, cheap_passwords()) as site:
                yield site, machine
    finally:
        await server.close()


async def add_user(site: Site, name: str) -> User:
    return await site.accounts.sign_up(username=name, name="", email=None, password=PASSWORD, address="a")


async def add_photo(site: Site, user: User, data: bytes, visibility: str = "public") -> Record:
    async def body() -> AsyncIterator[bytes]:
        yield data

    offer = await site.uploads.offer(user, Wish(len(data), title="t", visibility=visibility))
    return await site.uploads.pass_on(offer, body, len(data))


async def test_needles_are_removed_until_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site_of(tmp_path) as (site, machine):
        alice = await add_user(site, "alice")
        record = await add_photo(site, alice, b"x")
        machine.refuse_store = True
        await site.photos.delete(alice, record.photo_id)
        await site.housekeeping.do_due()
        assert machine.needles and site.housekeeping.failed >= 1
        machine.refuse_store = False
        monkeypatch.setattr(site.housekeeping, "_now_ms", lambda: time.time_ns() // 1_000_000 + 3_700_000)
        await site.housekeeping.do_due()
        assert not machine.needles
        await site.housekeeping.do_due()
        assert await site.database.read(lambda connection: due_removals(connection, 2**62, 10)) == []


async def test_views_of_moved_photos_are_counted_once(tmp_path: Path) -> None:
    async with site_of(tmp_path) as (site, machine):
        alice = await add_user(site, "alice")
        record = await add_photo(site, alice, b"x")
        moved = await site.photos.change(alice, record.photo_id, Changes(visibility="private"))
        key = Fid.parse(moved.fid).key
        assert key != moved.id == record.photo_id
        machine.hits = [(f"{key:x}", 3), (f"{record.photo_id:x}", 2), ("ffffffffffffffff", 1), ("77", 1)]
        for _ in range(2):
            await site.housekeeping.count_views()
        assert (await site.photos.get(alice, moved.id)).view_count == 5
        assert [one.id for one in await site.lists.top(alice, "alice", "day", 5)] == [moved.id]


async def test_a_photo_that_was_deleted_while_it_moved_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site_of(tmp_path) as (site, _):
        alice = await add_user(site, "alice")
        record = await add_photo(site, alice, b"x")
        stored = site.photos._stored
        write = stored.write

        async def write_late(*args: Any) -> None:
            await write(*args)
            # As by another front end: this one lets only one at a time change a photo.
            photo = await site.photos.get(alice, record.photo_id)
            await site.database.write(photo_table.remove, photo, 0)

        monkeypatch.setattr(stored, "write", write_late)
        with pytest.raises(Conflict):
            await site.photos.change(alice, record.photo_id, Changes(visibility="private"))
        with pytest.raises(NotFound):
            await site.photos.get(alice, record.photo_id)


async def test_an_idempotency_key_outlives_its_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site_of(tmp_path) as (site, _):
        alice = await add_user(site, "alice")
        first = await site.uploads.offer(alice, Wish(1), "k")
        late = time.time_ns() // 1_000_000 + 2 * 3600 * 1000
        monkeypatch.setattr(site.uploads, "_now_ms", lambda: late)
        second = await site.uploads.offer(alice, Wish(1), "k")
        assert second.ticket != first.ticket and second == await site.uploads.offer(alice, Wish(1), "k")


def record(key: int, owner: int, name: str, **changes: Any) -> Record:
    ticket = Ticket(b"x" * 16, str(Fid(1, key, 5)), owner, name, name.title(), 3, 1, title=f"photo {key}", tags=("a",))
    return replace(made_record(ticket, b"%d" % key), **changes)


async def stream(*found: tuple[Record, int]) -> AsyncIterator[StoredRecord]:
    for one, time_ms in found:
        yield StoredRecord(one, time_ms)


async def test_the_database_is_made_anew(tmp_path: Path) -> None:
    with database_in(tmp_path) as database:
        found = [(record(1, 7, "alice"), 1), (record(2, 7, "alice"), 2), (record(3, 9, "bob", visibility=2), 3)]
        done = await rebuild(database, stream(*found), 0)
        assert (done.photos, done.people, done.known, done.renamed) == (3, 2, 0, {})
        again = await rebuild(database, stream(*found), 0)
        assert (again.photos, again.people, again.known) == (0, 0, 3)
        photo = await database.read(photo_table.whatever, 3)
        assert photo is not None and (photo.owner_name, photo.title, photo.tags) == ("bob", "photo 3", ("a",))
        assert await database.read(photo_table.by_id, 3, 7) is None


async def test_who_took_a_name_meanwhile_gets_nobodys_photos(tmp_path: Path) -> None:
    with database_in(tmp_path) as database:
        await rebuild(database, stream((record(1, 1, "alice"), 1)), 0)
        # Another Alice, who had id 5 in the lost database.
        done = await rebuild(database, stream((record(2, 5, "alice", visibility=2), 1)), 0)
        assert done.renamed == {"alice": "alice_5"}
        photo = await database.read(photo_table.whatever, 2)
        assert photo is not None and photo.owner_name == "alice_5" and photo.owner_id == 5


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_records_of_a_photo_the_later_one_holds(tmp_path: Path, first: int) -> None:
    public = (record(1, 7, "alice", visibility=0), 10)
    private = (record(8, 7, "alice", visibility=2, original_id=1, title="after"), 20)
    order = [public, private] if first == 0 else [private, public]
    with database_in(tmp_path) as database:
        done = await rebuild(database, stream(*order), 0)
        assert (done.photos, done.replaced) == (1, 1)
        photo = await database.read(photo_table.whatever, 1)
        assert photo is not None and (photo.fid, int(photo.visibility)) == (str(Fid(1, 8, 5)), 2)
        assert photo.title == "after"
        [removal] = await database.read(due_removals, 1, 10)
        assert removal.fid == str(Fid(1, 1, 5))
