"""Every page for every role: well-formed, labelled, under a strict policy, with everything escaped."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pages_harness import LABELLED, Answer, Html, Visitor
from site_harness import PASSWORD, Place, running

from frontend.database.engine import DatabaseUnavailable
from frontend.records import dump, load
from frontend.services.accounts import Accounts
from haystack.fid import Fid
from haystack.views import is_view

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}&amp;"
PAGES = (
    "/", "/explore", "/top", "/top?period=ever&user=owner", "/search", "/search?q=subject", "/search?q=after:nonsense",
    "/sign-up", "/log-in", "/settings", "/upload", "/map", "/@owner", "/@owner/followers", "/@owner/following",
    "/@nobody_here", "/nowhere", "/photos/zz",
)  # fmt: skip
NEEDS_LOGIN = {"/settings", "/upload", "/map"}
MISSING = {"/@nobody_here", "/nowhere", "/photos/zz"}


class Scene:
    """An owner with a hostile photo, a follower who wrote under it, and somebody who is not logged in."""

    def __init__(self, place: Place, people: dict[str, Visitor], photo: str) -> None:
        self.place, self.people, self.photo = place, people, photo


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running(tmp_path) as place, AsyncExitStack() as stack:
        people = {}
        for name in ("owner", "follower", "nobody"):
            people[name] = Visitor(place)
            stack.push_async_callback(people[name].close)
        owner = await people["owner"].sign_up("owner")
        follower = await people["follower"].sign_up("follower")
        await follower.post("/@owner/follow")
        done = await owner.upload("beach.jpg", tags="subject, sea", visibility="public", keep_place="yes")
        photo = re.search(r"/photos/[0-9a-f]+", done.html.source)
        assert photo is not None, done.html.text
        changed = {"title": HOSTILE, "caption": HOSTILE, "tags": "subject sea", "visibility": "public"}
        await owner.post(f"{photo[0]}/edit", changed)
        await follower.post(f"{photo[0]}/comments", {"text": HOSTILE})
        await owner.post("/settings/profile", {"name": HOSTILE[:80], "email": "", "bio": HOSTILE})
        yield Scene(place, people, photo[0])


def check_page(answer: Answer) -> None:
    """What holds for each page whatever it shows."""
    html = answer.html
    where = answer.url
    assert answer.headers["Server"] == "haystack", where
    assert html.problems == [], where
    assert html.one("html").attributes["lang"] == "en"
    assert len(html.all("main")) == 1 and len(html.all("h1")) == 1, where
    assert html.one("title").text.strip(), where
    skip = next(one for one in html.all("a") if one.attributes.get("href") == "#main")
    assert skip.text and html.one("main").attributes["id"] == "main"
    ids = [one.attributes["id"] for one in html.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids)), where
    check_policy(answer)
    check_names(html, where)


def check_policy(answer: Answer) -> None:
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert (
        policy["default-src"] == "'none'" and policy["base-uri"] == "'none'" and policy["frame-ancestors"] == "'none'"
    )
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in str(policy) and "*" not in str(policy) and "data:" not in str(policy)
    for one in answer.html.elements:
        handlers = [name for name in one.attributes if name.startswith("on") or name == "style"]
        assert one.tag != "style" and not handlers, f"{answer.url}: <{one.tag} {one.attributes}>"
        if one.tag == "script":
            assert str(one.attributes["src"]).startswith("/static/") and not one.text.strip()
    pictures = policy["img-src"].split()
    for image in answer.html.all("img"):
        origin = re.match(r"https?://[^/]+", str(image.attributes["src"]))
        assert origin is None or origin[0] in pictures


def check_names(html: Html, where: str) -> None:
    """Whatever is filled in, pressed or looked at has a name that a screen reader says."""
    labelled = {one.attributes.get("for") for one in html.all("label")}
    for one in html.elements:
        given = one.attributes
        hidden = given.get("type") in ("hidden", "submit") or "hidden" in given
        if one.tag in LABELLED and not hidden:
            assert given.get("id") in labelled or "label" in one.inside or given.get("aria-label"), f"{where}: {given}"
        if one.tag in ("button", "a"):
            image = any(other.attributes.get("alt") for other in html.all("img") if one.tag in other.inside)
            assert one.text.strip() or given.get("aria-label") or image, f"{where}: {one}"
        if one.tag == "img":
            assert given.get("alt") and given.get("width") and given.get("height"), where
        if one.tag == "form" and given.get("method") == "post":
            assert 'name="csrf"' in html.source


async def test_every_page_for_every_role(scene: Scene) -> None:
    for role, visitor in scene.people.items():
        for path in (*PAGES, scene.photo, f"{scene.photo}/edit"):
            answer = await visitor.get(path)
            expected = 404 if path in MISSING else 422 if "nonsense" in path else 200
            if path.endswith("/edit") and role == "follower":
                expected = 404
            if role == "nobody" and (path in NEEDS_LOGIN or path.endswith("/edit")):
                assert "/log-in?next=" in answer.url
            assert answer.status == expected, f"{role} {path}: {answer.html.text}"
            check_page(answer)


async def test_hostile_texts_stay_texts(scene: Scene) -> None:
    for path in ("/", "/explore", "/@owner", scene.photo, f"{scene.photo}/edit", f"/search?q={HOSTILE[:60]}", "/map"):
        for visitor in scene.people.values():
            html = (await visitor.get(path)).html
            assert "<script>alert" not in html.source and "<img src=x" not in html.source, path
            assert all("onerror" not in one.attributes for one in html.elements), path
    shown = (await scene.people["nobody"].get(scene.photo)).html
    assert shown.one("h1").text == HOSTILE
    assert sum(HOSTILE in one.text for one in shown.all("p")) == 2  # caption and comment
    image = shown.all("img")[0]
    assert image.attributes["alt"] == HOSTILE


async def test_pictures_are_direct_and_leave_their_room(scene: Scene) -> None:
    html = (await scene.people["nobody"].get(scene.photo)).html
    image = html.all("img")[0].attributes
    assert str(image["src"]).startswith(f"http://{scene.place.machine.address}/")
    assert (image["width"], image["height"]) == ("1600", "1200")
    (source,) = html.all("source")
    assert source.attributes["type"] == "image/webp" and str(source.attributes["srcset"]).endswith("_14")
    assert any(
        "r135" in str(one.attributes.get("class")) and one.attributes.get("data-hash") for one in html.all("span")
    )


async def test_a_photo_that_is_looked_at_is_one_view_and_lists_are_none(scene: Scene) -> None:
    follower = scene.people["follower"]
    for path, looked_at in (("/explore", 0), ("/@owner", 0), ("/search?q=subject", 0), ("/", 1), (scene.photo, 1)):
        page = (await follower.get(path)).html
        # Of each kind of file that a browser may choose, as it takes one of them.
        webp = str(page.all("source")[0].attributes["srcset"])
        image = page.all("img")[0].attributes
        jpeg = f"{image['src']} {image.get('srcset', '')}"
        for urls in (webp, jpeg):
            fids = [Fid.parse(found) for found in re.findall(r"/(\d+,[0-9a-f_]+)", urls)]
            views = {one.alternate for one in fids if is_view(one.alternate)}
            assert len(views) == looked_at and (not looked_at or len({one.alternate for one in fids}) == 1), path


async def test_what_moves_is_shown_moving_to_who_looks_at_it(tmp_path: Path) -> None:
    async with running(tmp_path) as place, aiohttp.ClientSession() as session:
        owner = await place.person("owner")
        photo = (await owner.upload(b"gif"))["id"]
        [kept] = [needle for name, needle in place.machine.needles.items() if name.endswith("_99")]
        other = replace(load(kept[0]), fid=str(Fid(1, 0x7777, 5)), animated=True)
        await place.internal("/internal/photos", dump(other).encode())
        moving = (await owner.ok("GET", "/photos"))["photos"][0]
        assert moving["animated"] and moving["id"] != photo
        for one, shown in ((moving["id"], True), (photo, False)):
            async with session.get(f"{place.url}/photos/{one}") as response:
                page = Html(await response.text())
            found = [image for image in page.all("img") if image.attributes.get("class") == "moving"]
            assert bool(found) is shown
            assert all(image.attributes["alt"] == "" and "_" not in str(image.attributes["src"]) for image in found)
        async with session.get(f"{place.url}/explore") as response:
            assert 'class="moving"' not in await response.text()


async def test_reactions(scene: Scene) -> None:
    follower, owner, photo = scene.people["follower"], scene.people["owner"], scene.photo
    part = f"react-{photo.rpartition('/')[2]}"
    seen = await follower.get(photo)
    assert [one.attributes.get("value") for one in seen.html.all("button") if one.attributes.get("name")] == [
        "like", "love", "laugh", "wow", "sad",
    ]  # fmt: skip
    loved = await follower.post(f"{photo}/like", {"reaction": "love", "next": photo}, X_Part=part)
    assert 'aria-pressed="true" aria-label="Love, 1 person"' in loved.html.source
    assert len(loved.html.all("form")) == 1 and loved.html.source.count('aria-pressed="true"') == 1
    await owner.post(f"{photo}/like", {"reaction": "wow", "next": photo})
    both = await owner.get(photo)
    assert 'aria-pressed="false" aria-label="Love, 1 person"' in both.html.source
    assert 'aria-pressed="true" aria-label="Wow, 1 person"' in both.html.source
    changed = await follower.post(f"{photo}/like", {"reaction": "wow", "next": photo})
    assert 'aria-label="Wow, 2 people"' in changed.html.source and 'aria-label="Love, 0 people"' in changed.html.source
    check_page(changed)
    wrong = await follower.post(f"{photo}/like", {"reaction": "hate", "next": photo})
    assert wrong.status == 422
    for person in (follower, owner):
        await person.post(f"{photo}/unlike", {"next": photo})
    assert 'aria-label="Wow, 0 people"' in (await owner.get(photo)).html.source


async def test_feed_like_comment_unfollow(scene: Scene) -> None:
    follower, photo = scene.people["follower"], scene.photo
    feed = await follower.get("/")
    assert photo in feed.html.source
    liked = await follower.post(f"{photo}/like", {"next": "/"})
    assert liked.url.endswith("/")
    assert 'aria-pressed="true" aria-label="Like, 1 like"' in liked.html.source
    part = await follower.post(f"{photo}/unlike", {"next": "/"}, X_Part="like")
    assert 'aria-label="Like, 0 likes"' in part.html.source and len(part.html.all("form")) == 1
    said = await follower.post(f"{photo}/comments", {"text": "  well seen  "})
    assert "well seen" in said.html.text
    empty = await follower.post(f"{photo}/comments", {"text": " "})
    assert empty.status == 422 and "needs a text" in empty.html.text
    check_page(empty)
    number = re.findall(r"/comments/(\d+)/delete", said.html.source)[-1]
    gone = await follower.post(f"{photo}/comments/{number}/delete")
    assert "well seen" not in gone.html.text
    await follower.post("/@owner/unfollow")
    assert photo not in (await follower.get("/")).html.source


async def test_forms_of_others_are_refused(scene: Scene) -> None:
    follower, photo = scene.people["follower"], scene.photo
    token = await follower.token()
    wrong: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
        ({}, {}),
        ({"csrf": "0" * 64}, {}),
        ({"csrf": token}, {"Origin": "https://evil.example"}),
        ({"csrf": token}, {"Sec_Fetch_Site": "cross-site"}),
    )
    for path in (f"{photo}/like", "/settings/profile", "/log-out", "/@owner/unfollow", "/settings/tokens", "/sign-up"):
        for fields, headers in wrong:
            answer = await follower._ask("POST", path, fields, headers)
            assert answer.status == 403, path
            check_page(answer)
    form = aiohttp.FormData()
    form.add_field("photos", b"x" * 1000, filename="x.jpg")
    assert (await follower.post("/upload", form)).status == 403
    assert scene.place.machine.uploads == 1


async def test_nobody_changes_what_is_not_his(scene: Scene) -> None:
    follower, photo = scene.people["follower"], scene.photo
    for path in ("edit", "delete"):
        answer = await follower.post(f"{photo}/{path}", {"title": "mine", "visibility": "private"})
        assert answer.status in (403, 404)
    for path in ("like", "comments", "delete"):
        answer = await scene.people["nobody"].post(f"{photo}/{path}", {"text": "x"})
        assert "/log-in" in answer.url
    owner = scene.people["owner"]
    await owner.post(f"{photo}/edit", {"title": "Secret", "visibility": "private", "tags": ""})
    for role in ("follower", "nobody"):
        assert (await scene.people[role].get(photo)).status == 404
        for path in ("/", "/explore", "/@owner", "/search?q=secret", "/top?period=ever"):
            assert photo not in (await scene.people[role].get(path)).html.source
    own = await owner.get(photo)
    assert "Only you" in own.html.text and re.search(r"\?e=\d+&amp;s=", own.html.source)


async def test_plain_form_uploads_several_and_tells_what_was_refused(scene: Scene) -> None:
    owner = scene.people["owner"]
    done = await owner.upload("one.jpg", "two.jpg", tags="a b", visibility="followers")
    assert done.html.one("h1").text == "2 photos uploaded"
    check_page(done)
    records = list(scene.place.machine.taken.values())[-2:]
    assert [one.tags for one in records] == [("a", "b")] * 2 and {one.visibility for one in records} == {1}
    assert {one.latitude for one in records} == {None}  # the box was not ticked
    bad_tag = await owner.upload("one.jpg", tags="no!good", visibility="public")
    assert bad_tag.status == 422 and "is none" in bad_tag.html.text
    check_page(bad_tag)
    none = await owner.upload(tags="", visibility="public")
    assert none.status == 422 and "choose one photo" in none.html.text.lower()
    scene.place.machine.refuse_upload = (422, "this is no picture")
    refused = await owner.upload("bad.txt", visibility="public")
    assert refused.status == 422 and "bad.txt: this is no picture" in refused.html.text


async def test_the_script_learns_when_a_photo_is_published(scene: Scene) -> None:
    owner, follower = scene.people["owner"], scene.people["follower"]
    number = scene.photo.rpartition("/")[2]

    async def asked(visitor: Visitor, photo: str) -> Any:
        async with visitor.session.get(f"{scene.place.url}/upload/{photo}") as response:
            assert response.status == 200 and response.headers["Cache-Control"] == "no-store"
            return await response.json()

    assert await asked(owner, number) == {"there": True, "alike": 0}
    assert await asked(owner, "abc") == {"there": False, "alike": 0}
    await owner.upload("again.jpg", visibility="private")  # the same bytes once more
    assert await asked(owner, number) == {"there": True, "alike": 1}
    assert await asked(follower, number) == {"there": True, "alike": 0}


async def test_a_file_that_is_too_large_is_told_and_the_others_are_taken(tmp_path: Path) -> None:
    async with running(tmp_path, max_upload_bytes=1000) as place:
        visitor = Visitor(place)
        try:
            await visitor.sign_up("owner")
            form = aiohttp.FormData()
            form.add_field("csrf", await visitor.token())
            form.add_field("photos", b"x" * 1_000_000, filename="large.jpg")
            form.add_field("photos", b"small", filename="small.jpg")
            form.add_field("visibility", "public")
            answer = await visitor.post("/upload", form)
            assert "1 photo uploaded" in answer.html.text
            assert "large.jpg: a photo has at most 1,000 bytes" in answer.html.text
        finally:
            await visitor.close()


async def test_account(scene: Scene) -> None:
    visitor = Visitor(scene.place)
    try:
        taken = await visitor.post("/sign-up", {"username": "owner", "password": PASSWORD})
        assert taken.status == 409 and "taken" in taken.html.text
        short = await visitor.post("/sign-up", {"username": "anna", "password": "short", "name": "Anna"})
        assert short.status == 422 and 'aria-invalid="true"' in short.html.source
        assert 'value="Anna"' in short.html.source and "short" not in short.html.source.replace("A short", "")
        check_page(short)
        await visitor.sign_up("anna")
        made = await visitor.post("/settings/tokens", {"token-name": "script"})
        token = re.search(r"hst_[A-Za-z0-9_-]+", made.html.source)
        assert token is not None
        assert "hst_" not in (await visitor.get("/settings")).html.source
        number = re.search(r"/settings/tokens/(\d+)/delete", made.html.source)
        assert number is not None
        assert "script" not in (await visitor.post(number[0])).html.one("main").text.replace("upload scripts", "")
        wrong = await visitor.post("/settings/password", {"old": "not it at all", "password": "another one 1"})
        assert wrong.status in (401, 422) and "wrong" in wrong.html.text
        check_page(wrong)
        changed = await visitor.post("/settings/password", {"old": PASSWORD, "password": "another one 1"})
        assert "Your password is changed" in changed.html.text
        refused = await visitor.post("/log-in", {"login": "anna", "password": PASSWORD})
        assert refused.status == 401
        check_page(refused)
        inside = await visitor.post("/log-in", {"login": "anna", "password": "another one 1", "next": "/@owner"})
        assert inside.url.endswith("/@owner")
        out = await visitor.post("/log-out")
        assert "Log in" in out.html.text and "Settings" not in out.html.text
    finally:
        await visitor.close()


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/ a"])
async def test_logging_in_leads_nowhere_else(scene: Scene, target: str) -> None:
    visitor = Visitor(scene.place)
    try:
        answer = await visitor.post("/log-in", {"login": "owner", "password": PASSWORD, "next": target})
        assert answer.url == f"{scene.place.url}/"
    finally:
        await visitor.close()


async def test_lists_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.pages.browse.TILES", 3)
    monkeypatch.setattr("frontend.pages.people.TILES", 3)
    async with running(tmp_path) as place:
        visitor = Visitor(place)
        try:
            await visitor.sign_up("owner")
            await visitor.upload(*(f"{number}.jpg" for number in range(7)), visibility="public", tags="same")
            for start in ("/explore", "/@owner", "/search?q=%23same"):
                seen: list[str] = []
                following: Any = start
                while following:
                    html = (await visitor.get(following)).html
                    seen += re.findall(r'<a href="(/photos/[0-9a-f]+)">', html.source)
                    links = [one.attributes["href"] for one in html.all("a") if "data-more" in one.attributes]
                    following = links[0] if links else None
                assert len(seen) == len(set(seen)) == 7, start
            assert (await visitor.get("/explore?after=forged")).status == 422
        finally:
            await visitor.close()


async def test_a_new_comment_is_shown_also_behind_many(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.pages.photo.COMMENTS", 2)
    owner = scene.people["owner"]
    for number in range(4):
        said = await owner.post(f"{scene.photo}/comments", {"text": f"comment {number}"})
        assert f"comment {number}" in said.html.text
    assert "comment 0" not in said.html.text and "All comments" in said.html.text
    check_page(said)
    first = await owner.get(scene.photo)
    assert "comment 0" in first.html.text and "comment 3" not in first.html.text and "More comments" in first.html.text


async def test_who_has_to_log_in_comes_back(scene: Scene) -> None:
    nobody = scene.people["nobody"]
    answer = await nobody.post(f"{scene.photo}/like", {}, Referer=f"{scene.place.url}{scene.photo}")
    fields = {one.attributes["name"]: one.attributes.get("value") for one in answer.html.all("input")}
    assert fields["next"] == scene.photo
    elsewhere = await nobody.post(f"{scene.photo}/like", {}, Referer="https://evil.example/x")
    fields = {one.attributes["name"]: one.attributes.get("value") for one in elsewhere.html.all("input")}
    assert fields["next"] == "/"


async def test_where_nobody_signs_up_nothing_asks_to(tmp_path: Path) -> None:
    async with running(tmp_path, sign_up="off") as place:
        visitor = Visitor(place)
        try:
            for path in ("/", "/log-in", "/explore"):
                assert 'href="/sign-up"' not in (await visitor.get(path)).html.source
            answer = await visitor.post("/sign-up", {"username": "anna", "password": PASSWORD})
            assert answer.status == 403
            check_page(answer)
            assert "ask who runs this service" in (await visitor.get("/sign-up")).html.text
        finally:
            await visitor.close()


async def test_static_files_are_kept_for_ever_and_named_by_what_they_hold(scene: Scene) -> None:
    html = (await scene.people["nobody"].get("/")).html
    links = [str(one.attributes["href"]) for one in html.all("link")] + [
        str(one.attributes["src"]) for one in html.all("script")
    ]
    session = scene.place.session
    for link in links:
        assert re.search(r"\.[0-9a-f]{12}\.(css|js|svg)$", link)
        async with session.get(scene.place.url + link) as response:
            assert response.status == 200 and "immutable" in response.headers["Cache-Control"]
            body = await response.text()
        for imported in re.findall(r'from "([^"]+)"', body):
            async with session.get(scene.place.url + imported) as response:
                assert response.status == 200 and response.content_type == "text/javascript"
    async with session.get(f"{scene.place.url}/static/../assets.py") as response:
        assert response.status == 404


async def test_an_error_page_is_made_also_when_the_database_is_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise DatabaseUnavailable("the database does not answer")

    monkeypatch.setattr(Accounts, "session_user", gone)
    answer = await scene.people["owner"].get("/settings")
    assert answer.status == 503 and "The database does not answer." in answer.html.text
    check_page(answer)


async def test_a_cdn_is_in_the_policy(tmp_path: Path) -> None:
    async with running(tmp_path, images_url="https://cdn.example") as place:
        visitor = Visitor(place)
        try:
            await visitor.sign_up("owner")
            await visitor.upload("one.jpg", visibility="public")
            answer = await visitor.get("/@owner")
            check_page(answer)
            assert "img-src 'self' https://cdn.example;" in answer.headers["Content-Security-Policy"]
            assert answer.html.all("img")[0].attributes["src"].startswith("https://cdn.example/1,")
        finally:
            await visitor.close()


async def test_what_is_secret_is_not_kept(scene: Scene) -> None:
    owner = scene.people["owner"]
    assert (await owner.get("/settings")).headers["Cache-Control"] == "no-store"
    assert (await owner.get("/")).headers["Cache-Control"] == "private, no-cache"
    assert "Content-Encoding" not in (await owner.get(scene.photo)).headers
