"""Calls about accounts and about who follows whom."""

from __future__ import annotations

from aiohttp import web

from frontend.api import schemas
from frontend.api.table import Asking, Reply
from frontend.api.views import me_view, photo_page, photo_views, profile_view, token_view, user_page
from frontend.services.errors import Invalid
from frontend.web.csrf import csrf_token_of
from frontend.web.who import clear_session, session_token, set_session


async def sign_up(asking: Asking) -> Reply:
    sent = asking.sent(schemas.SignUp)
    accounts = asking.site.accounts
    user = await accounts.sign_up(
        username=sent.username, name=sent.name, email=sent.email, password=sent.password, address=asking.address
    )
    return _with_session(asking, me_view(user), await accounts.begin_session(user))


async def log_in(asking: Asking) -> Reply:
    sent = asking.sent(schemas.LogIn)
    user, token = await asking.site.accounts.log_in(sent.login, sent.password, asking.address)
    return _with_session(asking, me_view(user), token)


def _with_session(asking: Asking, me: schemas.Me, token: str) -> Reply:
    document = schemas.Session(user=me, csrf_token=csrf_token_of(asking.site.secret, token))
    return Reply(document, decorate=lambda response: set_session(asking.request, response, token))


async def log_out(asking: Asking) -> Reply:
    token = session_token(asking.request)
    if token is not None:
        await asking.site.accounts.log_out(token)

    def forget(response: web.Response) -> None:
        clear_session(asking.request, response)

    return Reply(decorate=forget)


async def get_me(asking: Asking) -> Reply:
    return Reply(me_view(asking.me))


async def change_me(asking: Asking) -> Reply:
    sent = asking.sent(schemas.ChangeMe)
    changed = await asking.site.accounts.change_profile(asking.me, name=sent.name, email=sent.email, bio=sent.bio)
    return Reply(me_view(changed))


async def change_password(asking: Asking) -> Reply:
    sent = asking.sent(schemas.ChangePassword)
    await asking.site.accounts.change_password(asking.me, sent.old_password, sent.new_password)
    return Reply()


async def list_tokens(asking: Asking) -> Reply:
    return Reply(schemas.Tokens(tokens=[token_view(one) for one in await asking.site.accounts.tokens(asking.me)]))


async def make_token(asking: Asking) -> Reply:
    sent = asking.sent(schemas.MakeToken)
    accounts = asking.site.accounts
    if (sent.login is None) != (sent.password is None):
        raise Invalid("password", "login and password are given together")
    if sent.login is not None and sent.password is not None:
        user = await accounts.check(sent.login, sent.password, asking.address)
    else:
        user = asking.me
    token, text = await accounts.add_token(user, sent.name)
    return Reply(schemas.NewToken(**token_view(token).model_dump(), token=text))


async def delete_token(asking: Asking) -> Reply:
    await asking.site.accounts.remove_token(asking.me, int(asking.request.match_info["token"]))
    return Reply()


async def get_user(asking: Asking) -> Reply:
    return Reply(profile_view(await asking.site.follows.profile(asking.user, asking.username)))


async def follow_user(asking: Asking) -> Reply:
    return Reply(profile_view(await asking.site.follows.follow(asking.me, asking.username)))


async def unfollow_user(asking: Asking) -> Reply:
    return Reply(profile_view(await asking.site.follows.unfollow(asking.me, asking.username)))


async def get_followers(asking: Asking) -> Reply:
    query, scope = asking.asked(schemas.PageQuery), f"followers {asking.username}"
    after = asking.site.cursors.read(scope, query.cursor)
    page = await asking.site.follows.followers(asking.username, after, query.limit)
    return Reply(user_page(asking.site, scope, page))


async def get_following(asking: Asking) -> Reply:
    query, scope = asking.asked(schemas.PageQuery), f"following {asking.username}"
    after = asking.site.cursors.read(scope, query.cursor)
    page = await asking.site.follows.following(asking.username, after, query.limit)
    return Reply(user_page(asking.site, scope, page))


async def get_photos_of_user(asking: Asking) -> Reply:
    query, scope = asking.asked(schemas.PageQuery), f"photos of {asking.username}"
    after = asking.site.cursors.read(scope, query.cursor)
    page = await asking.site.lists.of_user(asking.user, asking.username, after, query.limit)
    return Reply(await photo_page(asking.site, scope, page))


async def get_top_photos(asking: Asking) -> Reply:
    query = asking.asked(schemas.TopQuery)
    found = await asking.site.lists.top(asking.user, asking.username, query.period, query.limit)
    return Reply(schemas.PhotoList(photos=await photo_views(asking.site, found)))
