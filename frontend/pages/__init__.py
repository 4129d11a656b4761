"""The pages that people see: rendered on the server, complete without script.

Templates are in ``templates``, style and script in ``static``; nothing is built, and nothing comes from other hosts but
the pictures. ``docs/photo-service.md`` tells the rules that they keep.
"""

from __future__ import annotations

from aiohttp import web

from frontend.pages import account, browse, people, photo, uploading
from frontend.pages.assets import PREFIX, Assets
from frontend.pages.common import RENDERER
from frontend.pages.errors import error_page
from frontend.pages.rendering import Renderer
from frontend.web.keys import ERROR_PAGE

_ONE_PHOTO = "/photos/{photo_id:[0-9a-zA-Z]{1,40}}"
_ONE_USER = "/@{username:[^/]{1,60}}"
_NUMBER = "[0-9]{1,18}"


def add_pages(app: web.Application) -> None:
    """Add the pages and what belongs to them to the front end."""
    assets = Assets()
    app[RENDERER] = Renderer(assets)
    app[ERROR_PAGE] = error_page
    get, post = web.get, web.post
    app.add_routes(
        [
            get("/", browse.home),
            get("/explore", browse.explore),
            get("/top", browse.top),
            get("/search", browse.search),
            get("/map", browse.world_map),
            get("/sign-up", account.sign_up_page),
            post("/sign-up", account.sign_up),
            get("/log-in", account.log_in_page),
            post("/log-in", account.log_in),
            post("/log-out", account.log_out),
            get("/settings", account.settings),
            post("/settings/profile", account.save_profile),
            post("/settings/password", account.save_password),
            post("/settings/tokens", account.add_token),
            post(f"/settings/tokens/{{token_id:{_NUMBER}}}/delete", account.remove_token),
            get("/upload", uploading.upload_page),
            post("/upload", uploading.upload),
            get("/upload/{photo_id:[0-9a-f]{1,16}}", uploading.uploaded),
            get(_ONE_PHOTO, photo.photo),
            post(f"{_ONE_PHOTO}/like", photo.like),
            post(f"{_ONE_PHOTO}/unlike", photo.unlike),
            post(f"{_ONE_PHOTO}/comments", photo.comment),
            post(f"{_ONE_PHOTO}/comments/{{comment_id:{_NUMBER}}}/delete", photo.delete_comment),
            get(f"{_ONE_PHOTO}/edit", photo.edit),
            post(f"{_ONE_PHOTO}/edit", photo.save),
            post(f"{_ONE_PHOTO}/delete", photo.delete),
            get(_ONE_USER, people.profile),
            get(f"{_ONE_USER}/followers", people.followers),
            get(f"{_ONE_USER}/following", people.following),
            post(f"{_ONE_USER}/follow", people.follow),
            post(f"{_ONE_USER}/unfollow", people.unfollow),
            get(f"{PREFIX}{{name}}", assets.serve),
        ]
    )
