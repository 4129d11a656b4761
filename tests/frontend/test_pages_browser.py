"""The photo service as people see it: Chromium against a whole cluster."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, Tab, chromium, find_chromium
from pictures import file_of, noise
from real_cluster import haystack_up, host_of
from scenery import landscape, photo_file

from frontend.images.thumbhash import thumbhash

PASSWORD = "correct horse battery"
PHOTOS = 10
SIZES = ((1800, 1200), (1200, 1600), (1600, 900), (1400, 1400))
PHONE = {"width": 390, "height": 844, "phone": True}
ENTER = ("Enter", 13, "\r")
SHOTS = Path(os.environ["SCREENSHOTS_FOLDER"]) if "SCREENSHOTS_FOLDER" in os.environ else None

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    find_chromium()
    options = ("--stores", "1", "--workers", "1", "--cache-memory", "128MiB")
    with haystack_up(tmp_path_factory.mktemp("cluster"), *options) as running:
        yield running


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path / "chromium") as found:
        yield found
    shutil.rmtree(tmp_path / "chromium", ignore_errors=True)


async def sign_up(tab: Tab, site: str, name: str) -> None:
    await tab.go(f"{site}/sign-up")
    await tab.fill("#username", name)
    await tab.fill("#password", PASSWORD)
    await tab.press(*ENTER)
    await tab.until("location.pathname === '/' && document.querySelector('.foot form')")
    await tab.loaded()


def photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Files of photos, such as a camera and somebody with names for them would leave."""
    made = []
    for number in range(first, first + count):
        path = folder / f"Walk number {number}.jpg"
        path.write_bytes(photo_file(number, *SIZES[number % len(SIZES)]))
        made.append(path)
    return made


async def shot(tab: Tab, name: str) -> None:
    if SHOTS is not None:
        await tab.picture(SHOTS / f"{name}.png")


async def check_width(tab: Tab) -> None:
    """Nothing stands out of the page to the right."""
    wide = await tab.run("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{await tab.run('location.href')} is {wide} px too wide"


async def finished(tab: Tab, count: int) -> None:
    await tab.until(f"document.querySelectorAll('.upload.finished').length === {count}", seconds=120)


async def test_ten_photos_from_the_chooser_to_a_follower(
    cluster: dict[str, Any], browser: Chromium, tmp_path: Path
) -> None:
    site = cluster["frontend"]
    anna, ben = await browser.person(), await browser.person()
    await sign_up(anna, site, "anna")
    await sign_up(ben, site, "ben")
    await ben.go(f"{site}/@anna")
    await ben.click("#follow button")
    await ben.until("document.querySelector('#follow button')?.textContent.startsWith('Unfollow')")

    await upload_ten(anna, site, tmp_path)
    await look_at_the_feed(ben, site)
    await like_and_comment(ben, site)
    await search(ben, site)
    await by_keyboard(ben, site)
    await on_a_phone(ben, site)

    known = {host_of(url) for url in (site, cluster["cache"], *(one["url"] for one in cluster["stores"]))}
    intakes = {host_of(url) for url in anna.requests if "/files" in url}
    assert intakes and not intakes & known  # photos went straight to the storage machine
    for tab in (anna, ben):
        assert tab.complaints == [] and tab.failed == []
        assert tab.hosts() <= known | intakes
        assert {host.partition(":")[0] for host in tab.hosts()} == {"127.0.0.1"}


async def upload_ten(tab: Tab, site: str, folder: Path) -> None:
    await tab.go(f"{site}/upload")
    await tab.call(
        "Network.emulateNetworkConditions", offline=False, latency=5, downloadThroughput=-1, uploadThroughput=400_000
    )
    await tab.fill("#tags", "hills evening")
    await tab.choose("#files", photos(folder, PHOTOS))
    await tab.until(f"document.querySelectorAll('.upload').length === {PHOTOS}")
    assert await tab.run("document.querySelector('.upload-title').value") == "Walk number 0"
    await shot(tab, "upload-chosen")
    await tab.click("#start")
    seen: set[float] = set()
    while await tab.run("document.querySelectorAll('.upload.finished').length") < PHOTOS:
        seen |= set(await tab.run("[...document.querySelectorAll('.upload.running progress')].map(one => one.value)"))
        assert not await tab.run("document.querySelector('.upload.refused, .upload.failed')?.textContent")
        if 2 < len(seen) < 6:
            await shot(tab, "upload-running")
        await asyncio.sleep(0.05)
    assert any(0 < value < 100 for value in seen), seen
    assert await tab.run("document.getElementById('summary').textContent") == f"{PHOTOS} of {PHOTOS} uploaded."
    await shot(tab, "upload-done")
    await tab.click("#done")
    await tab.until("location.pathname === '/@anna'")
    await tab.loaded()
    assert await tab.run("document.querySelectorAll('.tile').length") == PHOTOS
    await tab.pictures_are_there()
    await shot(tab, "profile")


async def look_at_the_feed(tab: Tab, site: str) -> None:
    await tab.go(f"{site}/")
    assert await tab.run("document.querySelectorAll('.post').length") == PHOTOS
    await tab.pictures_are_there()
    shown = await tab.run(
        "(() => { const one = document.querySelector('.post img'); const box = one.getBoundingClientRect();"
        "const ratio = one.naturalWidth / one.naturalHeight;"
        "return {source: one.currentSrc, ratio, shown: box.width / box.height}; })()"
    )
    assert abs(shown["ratio"] - shown["shown"]) < 0.08
    assert shown["source"].rpartition("_")[2] in ("13", "14")  # WebP, of the size that is needed
    await shot(tab, "feed")
    await shot_in_the_dark(tab, "feed")


async def shot_in_the_dark(tab: Tab, name: str) -> None:
    if SHOTS is not None:
        await tab.look(width=1280, height=900, dark=True)
        await shot(tab, f"{name}-dark")
        await tab.look(width=1280, height=900)


async def like_and_comment(tab: Tab, site: str) -> None:
    await tab.run("window.stays = true")
    await tab.click(".post .like button")
    await tab.until("document.querySelector('.post .like button').ariaPressed === 'true'")
    assert await tab.run("window.stays && document.querySelector('.post .like').textContent.trim()") == "1"
    assert await tab.run("document.activeElement.closest('.like') !== null")
    await tab.click(".post h2 a")
    await tab.until("location.pathname.startsWith('/photos/')")
    await tab.loaded()
    await tab.pictures_are_there()
    await shot(tab, "photo")
    await tab.run("window.stays = true")
    await tab.click("button[value=love]")
    await tab.until("document.querySelector('button[value=love]').ariaPressed === 'true'")
    pressed = "[...document.querySelectorAll('.reactions [aria-pressed=true]')].map(one => one.ariaLabel)"
    assert await tab.run(pressed) == ["Love, 1 person"]
    assert await tab.run("document.activeElement.value") == "love"
    assert await tab.run("document.getElementById('status').textContent") == "Love, 1 person"
    await tab.click("button[value=love]")
    await tab.until("document.querySelector('button[value=love]').ariaPressed === 'false'")
    await tab.click("button[value=wow]")
    await tab.until("document.querySelector('button[value=wow]').ariaPressed === 'true'")
    assert await tab.run("window.stays") is True
    await tab.fill("#text", "What a light! <b>Where</b> was it?")
    await tab.click(".say button")
    await tab.until("document.querySelector('.comment-text')?.textContent === 'What a light! <b>Where</b> was it?'")
    assert await tab.run("window.stays && document.getElementById('status').textContent") == "Done."
    assert await tab.run("document.getElementById('talk').textContent") == "1"
    await tab.run("document.querySelector('.facts').scrollIntoView({block: 'end'})")
    await shot(tab, "photo-comments")


async def search(tab: Tab, site: str) -> None:
    await tab.go(f"{site}/")
    await tab.fill("#find", "number 7 #hills")
    await tab.press(*ENTER)
    await tab.until("location.pathname === '/search'")
    await tab.loaded()
    assert await tab.run("[...document.querySelectorAll('.tile-title')].map(one => one.textContent)") == [
        "Walk number 7"
    ]
    await tab.pictures_are_there()
    await shot(tab, "search")


async def by_keyboard(tab: Tab, site: str) -> None:
    await tab.go(f"{site}/@anna")
    await tab.press("Tab", 9)
    assert await tab.run("document.activeElement.className") == "skip"
    await tab.press(*ENTER)
    await tab.until("document.activeElement.id === 'main'")
    first = await tab.run("document.querySelector('.tile a').href")
    await tab.go(first)
    older = await tab.run("document.querySelector('.neighbours [rel=next]').href")
    await tab.press("ArrowRight", 39)
    await tab.until(f"location.href === '{older}'")
    await tab.loaded()
    await tab.press("ArrowLeft", 37)
    await tab.until(f"location.href === '{first}'")
    await tab.loaded()


async def on_a_phone(tab: Tab, site: str) -> None:
    photo = await tab.run("location.pathname")
    await tab.look(**PHONE)
    for name, path in (("feed", "/"), ("photo", photo), ("profile", "/@anna"), ("upload", "/upload"), ("top", "/top")):
        await tab.go(f"{site}{path}")
        await tab.pictures_are_there()
        await check_width(tab)
        small = await tab.run(
            "[...document.querySelectorAll('main button, main .button, nav a')].filter(one => one.offsetHeight"
            " && one.offsetHeight < 24).map(one => one.outerHTML)"
        )
        assert small == []
        bar = await tab.run("innerHeight - document.querySelector('.main-nav').getBoundingClientRect().bottom")
        assert abs(bar) < 1, "the bar is where a thumb reaches it"
        await shot(tab, f"phone-{name}")
    await tab.look(**PHONE, dark=True)
    await tab.go(f"{site}/explore")
    await tab.pictures_are_there()
    await shot(tab, "phone-dark")


async def test_an_upload_goes_on_after_the_connection_broke(
    cluster: dict[str, Any], browser: Chromium, tmp_path: Path
) -> None:
    site, tab = cluster["frontend"], await browser.person()
    await sign_up(tab, site, "carla")
    await tab.go(f"{site}/upload")
    slow = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_000_000}
    await tab.call("Network.emulateNetworkConditions", offline=False, **slow)
    large = tmp_path / "large.jpg"
    large.write_bytes(file_of(noise(2400, 1800), quality=95))
    assert large.stat().st_size > 4.5 * 2**20  # two pieces
    await tab.choose("#files", [large])
    await tab.until("document.querySelector('.upload')")
    await tab.click("#start")
    await tab.until("document.querySelector('.upload progress').value > 10")
    # What is being sent still comes through: the second piece is what finds no connection.
    await tab.call("Network.emulateNetworkConditions", offline=True, **slow)
    await tab.until("/Trying again/.test(document.querySelector('.upload-state').textContent)")
    await tab.call("Network.emulateNetworkConditions", offline=False, **{**slow, "uploadThroughput": -1})
    await finished(tab, 1)
    creations = [url for url in tab.requests if url.endswith("/files")]
    assert len(set(creations)) == 1 and len(creations) <= 2  # with its preflight: one upload, that went on


async def test_dropped_files_and_those_that_are_refused(
    cluster: dict[str, Any], browser: Chromium, tmp_path: Path
) -> None:
    site, tab = cluster["frontend"], await browser.person()
    await sign_up(tab, site, "dora")
    await tab.go(f"{site}/upload")
    (good,) = photos(tmp_path, 1, first=60)
    text = tmp_path / "text.jpg"
    text.write_text("This is no picture. " * 50)
    data = {"items": [], "files": [str(good), str(text)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        await tab.call("Input.dispatchDragEvent", type=kind, x=640, y=300, data=data)
    await tab.until("document.querySelectorAll('.upload').length === 2")
    await tab.click("#start")
    await finished(tab, 1)
    await tab.until("document.querySelector('.upload.refused')")
    assert await tab.run("document.querySelector('.upload.refused .again').hidden")
    assert await tab.run("document.querySelector('.upload.refused .upload-state').textContent")
    await shot(tab, "upload-refused")


async def test_without_script(cluster: dict[str, Any], browser: Chromium, tmp_path: Path) -> None:
    site, tab = cluster["frontend"], await browser.person()
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await sign_up(tab, site, "emil")
    await tab.go(f"{site}/upload")
    await tab.choose("#files", photos(tmp_path, 2, first=70))
    await shot(tab, "upload-without-script")
    await tab.click(".without-script button")
    await tab.until("/2 photos uploaded/.test(document.body.textContent)")
    await tab.click("main .results a")
    await tab.until("location.pathname.startsWith('/photos/')")
    await tab.loaded()
    await tab.pictures_are_there()
    await tab.click(".like button")
    await tab.until("document.querySelector('.like button')?.ariaPressed === 'true'")
    await tab.fill("#text", "Mine.")
    await tab.click(".say button")
    await tab.until("document.querySelector('.comment-text')?.textContent === 'Mine.'")
    assert tab.complaints == [] and tab.failed == []


async def test_placeholders_look_like_their_pictures(cluster: dict[str, Any], browser: Chromium) -> None:
    tab = await browser.person()
    await tab.go(f"{cluster['frontend']}/")
    image = landscape(3, 600, 400)
    module = await tab.run("fetch(document.querySelector('script[src*=page]').src).then(one => one.text())")
    imported = re.search(r'from "([^"]+thumbhash[^"]+)"', module)
    assert imported is not None
    hash_text = base64.b64encode(thumbhash(image)).decode()
    painted = await tab.run(
        f"import('{imported[1]}').then(({{ paint }}) => {{ const canvas = document.createElement('canvas');"
        f"paint(canvas, '{hash_text}'); const {{ width, height }} = canvas;"
        "return [width, height, ...canvas.getContext('2d').getImageData(0, 0, width, height).data]; })"
    )
    width, height, *pixels = painted
    assert (width, height) == (32, 23)
    small = image.resize((width, height)).tobytes()
    apart = [abs(pixels[at * 4 + band] - small[at * 3 + band]) for at in range(width * height) for band in range(3)]
    assert sum(apart) / len(apart) < 20
