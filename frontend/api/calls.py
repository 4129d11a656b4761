"""All calls of the API."""

from __future__ import annotations

from frontend.api import people_calls as people
from frontend.api import photo_calls as photos
from frontend.api import schemas as s
from frontend.api.table import Call, Who

_USER = Who.USER
_KEY = {photos.IDEMPOTENCY_KEY: "Asked again with the same key within a day, the answer is the same."}
_PHOTO, _UPLOADS, _TALK = "photos", "uploads", "comments and reactions"
_LISTS, _PEOPLE, _ACCOUNT = "lists", "people", "account"

CALLS: tuple[Call, ...] = (
    # -- account
    Call("signUp", "POST", "/users", _ACCOUNT, "Sign up, and log in.", people.sign_up,
         status=201, answer=s.Session, body=s.SignUp, problems=(403, 409)),
    Call("logIn", "POST", "/sessions", _ACCOUNT, "Log in: the answer sets the session's cookie.", people.log_in,
         status=201, answer=s.Session, body=s.LogIn, problems=(401, 403)),
    Call("logOut", "DELETE", "/sessions/current", _ACCOUNT, "Log out.", people.log_out, status=204, problems=(403,)),
    Call("getMe", "GET", "/me", _ACCOUNT, "Who is logged in.", people.get_me, answer=s.Me, who=_USER),
    Call("changeMe", "PATCH", "/me", _ACCOUNT, "Change one's profile.", people.change_me,
         answer=s.Me, body=s.ChangeMe, who=_USER, problems=(409,)),
    Call("changePassword", "PUT", "/me/password", _ACCOUNT, "Set another password.", people.change_password,
         status=204, body=s.ChangePassword, who=_USER),
    Call("listTokens", "GET", "/tokens", _ACCOUNT, "One's API tokens.", people.list_tokens,
         answer=s.Tokens, who=_USER),
    Call("makeToken", "POST", "/tokens", _ACCOUNT, "Make an API token, logged in or with login and password.",
         people.make_token, status=201, answer=s.NewToken, body=s.MakeToken, problems=(401, 403)),
    Call("deleteToken", "DELETE", "/tokens/{token}", _ACCOUNT, "Make an API token worthless.", people.delete_token,
         status=204, who=_USER),
    # -- people
    Call("getUser", "GET", "/users/{username}", _PEOPLE, "Somebody's profile.", people.get_user, answer=s.Profile),
    Call("followUser", "PUT", "/users/{username}/follow", _PEOPLE, "Follow somebody.", people.follow_user,
         answer=s.Profile, who=_USER),
    Call("unfollowUser", "DELETE", "/users/{username}/follow", _PEOPLE, "Follow somebody no more.",
         people.unfollow_user, answer=s.Profile, who=_USER),
    Call("getFollowers", "GET", "/users/{username}/followers", _PEOPLE, "Who follows somebody, latest first.",
         people.get_followers, answer=s.UserPage, query=s.PageQuery),
    Call("getFollowing", "GET", "/users/{username}/following", _PEOPLE, "Whom somebody follows, latest first.",
         people.get_following, answer=s.UserPage, query=s.PageQuery),
    Call("getPhotosOfUser", "GET", "/users/{username}/photos", _LISTS, "Somebody's photos, newest first.",
         people.get_photos_of_user, answer=s.PhotoPage, query=s.PageQuery),
    Call("getTopPhotos", "GET", "/users/{username}/top", _LISTS, "Somebody's best photos, by views and likes.",
         people.get_top_photos, answer=s.PhotoList, query=s.TopQuery),
    # -- lists
    Call("getFeed", "GET", "/feed", _LISTS, "Photos of those whom one follows, newest first.", photos.get_feed,
         answer=s.PhotoPage, query=s.PageQuery, who=_USER),
    Call("listPhotos", "GET", "/photos", _LISTS, "Everybody's public photos, newest first.", photos.list_photos,
         answer=s.PhotoPage, query=s.PageQuery),
    Call("listTopPhotos", "GET", "/top", _LISTS, "The best photos of all, by views and likes.", photos.list_top,
         answer=s.PhotoList, query=s.TopQuery),
    Call("searchPhotos", "GET", "/search", _LISTS, "Search for photos, best first.", photos.search_photos,
         answer=s.SearchPage, query=s.SearchQuery),
    # -- uploads
    Call("requestUpload", "POST", "/uploads", _UPLOADS, "Ask for a ticket to upload straight to a storage machine.",
         photos.ask_upload, status=201, answer=s.Upload, body=s.AskUpload, who=_USER, headers=_KEY,
         problems=(409, 503)),
    Call("uploadPhoto", "POST", "/photos", _UPLOADS, "Upload a photo as a form.", photos.upload_photo,
         status=201, answer=s.UploadedPhoto, form=s.UploadForm, who=_USER, headers=_KEY,
         problems=(408, 409, 413, 415, 503)),
    # -- photos
    Call("getPhoto", "GET", "/photos/{photo}", _PHOTO, "What is known of a photo, and where its pictures are.",
         photos.get_photo, answer=s.Photo),
    Call("changePhoto", "PATCH", "/photos/{photo}", _PHOTO,
         "Change one's photo. Another visibility moves its pictures to other URLs.",
         photos.change_photo, answer=s.Photo, body=s.ChangePhoto, who=_USER, problems=(409, 503)),
    Call("deletePhoto", "DELETE", "/photos/{photo}", _PHOTO, "Delete one's photo for good.", photos.delete_photo,
         status=204, who=_USER),
    Call("downloadPhoto", "GET", "/photos/{photo}/download", _PHOTO,
         "Redirect to the original, to be saved; its owner gets the untouched upload where that was kept.",
         photos.download_photo, status=302),
    Call("getPicture", "GET", "/photos/{photo}/{size}", _PHOTO, "Redirect to a picture, in a format that is accepted.",
         photos.get_picture, status=302, query=s.PictureQuery),
    # -- talk
    Call("getComments", "GET", "/photos/{photo}/comments", _TALK, "The comments under a photo, oldest first.",
         photos.get_comments, answer=s.CommentPage, query=s.PageQuery),
    Call("writeComment", "POST", "/photos/{photo}/comments", _TALK, "Write a comment.", photos.write_comment,
         status=201, answer=s.Comment, body=s.WriteComment, who=_USER),
    Call("deleteComment", "DELETE", "/photos/{photo}/comments/{comment}", _TALK,
         "Delete a comment: one's own, or one under one's own photo.", photos.delete_comment, status=204, who=_USER),
    Call("getReactions", "GET", "/photos/{photo}/likes", _TALK, "How people reacted.", photos.get_reactions,
         answer=s.Reactions),
    Call("likePhoto", "PUT", "/photos/{photo}/like", _TALK, "React to a photo, in place of an earlier reaction.",
         photos.react, answer=s.Reactions, body=s.React, who=_USER),
    Call("unlikePhoto", "DELETE", "/photos/{photo}/like", _TALK, "Take a reaction back.",
         photos.take_reaction_back, answer=s.Reactions, who=_USER),
)  # fmt: skip
"""A route that could be taken for another one stands behind it."""
