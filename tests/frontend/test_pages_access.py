"""Who sees and changes what by the pages: every role, every visibility, every form, from tables."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

from pages_harness import Visitor
from site_harness import running

SEES = {"public": {"owner", "follower", "stranger", "nobody"}, "followers": {"owner", "follower"}, "private": {"owner"}}
ACTS = ("like", "unlike", "comments", "comments/{comment}/delete", "edit", "delete")


async def test_pages_show_and_change_for_each_role_what_it_may(tmp_path: Path) -> None:
    async with running(tmp_path) as place, AsyncExitStack() as stack:
        people = {name: Visitor(place) for name in ("owner", "follower", "stranger", "nobody")}
        for name, person in people.items():
            stack.push_async_callback(person.close)
            if name != "nobody":
                await person.sign_up(name)
        await people["follower"].post("/@owner/follow")
        photos: dict[str, str] = {}
        for number, visibility in enumerate(SEES):
            await people["owner"].upload("a.jpg", data=bytes([number]), tags=f"{visibility}only", visibility=visibility)
            profile = (await people["owner"].get("/@owner")).html.source
            [photos[visibility]] = set(re.findall(r'"/photos/([0-9a-f]+)"', profile)) - set(photos.values())
        for visibility, photo in photos.items():
            for name, person in people.items():
                await look_around(person, name, photo, name in SEES[visibility])
        for visibility, photo in photos.items():
            said = await people["owner"].post(f"/photos/{photo}/comments", {"text": "First."})
            comment = re.findall(r'id="c([0-9]+)"', said.html.source)[-1]
            for name in ("stranger", "nobody", "follower"):
                await try_to_change(people[name], name, photo, comment, name in SEES[visibility])
            page = await people["owner"].get(f"/photos/{photo}")
            assert page.status == 200 and "First." in page.html.text and "Taken over" not in page.html.text


async def look_around(person: Visitor, name: str, photo: str, sees: bool) -> None:
    """A photo is on its page, and in lists, of those alone who may see it."""
    assert ((await person.get(f"/photos/{photo}")).status == 200) is sees, (name, photo)
    for path in ("/@owner", "/top?period=ever", "/search?q=@owner"):
        assert (f"/photos/{photo}" in (await person.get(path)).html.source) is sees, (name, path)
    if not sees:
        for path in ("/", "/explore", "/map"):
            assert f"/photos/{photo}" not in (await person.get(path)).html.source, (name, path)
        assert '"there": true' not in (await person.get(f"/upload/{photo}")).html.source
    answer = await person.get(f"/photos/{photo}/edit")
    assert (answer.url.endswith(f"/photos/{photo}/edit") and "/log-in" not in answer.url and answer.status == 200) is (
        name == "owner"
    ), (name, photo)


async def try_to_change(person: Visitor, name: str, photo: str, comment: str, sees: bool) -> None:
    """Forms that no page has for this one."""
    for act in (one.format(comment=comment) for one in ACTS):
        fields = {"text": "Not mine.", "title": "Taken over", "visibility": "public", "tags": ""}
        if name == "nobody":
            answer = await person._ask("POST", f"/photos/{photo}/{act}", fields, {})
            assert answer.status in (401, 403) or answer.url.partition("?")[0].endswith("/log-in"), (act, answer.status)
        else:
            answer = await person.post(f"/photos/{photo}/{act}", fields)
            may = sees and act in ("like", "unlike", "comments")
            assert (answer.status == 200) is may, (name, photo, act, answer.status)
            assert may or answer.status in (403, 404)
