"""What goes over the wire: requests and answers. Names are camelCase there, times RFC 3339, photos' ids hex."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from frontend.records import MAX_CAPTION, MAX_TITLE
from frontend.services.names import (
    LEAST_PASSWORD,
    MAX_BIO,
    MAX_COMMENT,
    MAX_EMAIL,
    MAX_NAME,
    MAX_PASSWORD,
    PHOTO_ID_PATTERN,
    USERNAME_PATTERN,
)

MAX_LIMIT = 100
DEFAULT_LIMIT = 30
MAX_QUERY_TEXT = 200

PhotoId = Annotated[str, Field(pattern=PHOTO_ID_PATTERN, examples=["1f5a2c9e"])]
Username = Annotated[str, Field(pattern=USERNAME_PATTERN, examples=["alice"])]
Word = Literal["public", "followers", "private"]
Reaction = Literal["like", "love", "laugh", "wow", "sad"]
Period = Literal["day", "week", "month", "year", "ever"]
SizeName = Literal["thumbnail", "small", "medium", "large", "original"]
FormatName = Literal["jpeg", "webp", "avif"]
Password = Annotated[str, Field(min_length=LEAST_PASSWORD, max_length=MAX_PASSWORD)]
AnyPassword = Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD)]


class Answer(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Request(BaseModel):
    """Base of what comes in: nothing unknown, and no number where a text is meant."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Wrong(Answer):
    """One value that was not accepted."""

    field: str
    problem: str


class Problem(Answer):
    """Why something was not done (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Wrong] = Field(default_factory=list)


# -- people


class User(Answer):
    """Somebody, as all see him."""

    username: Username
    name: str
    bio: str
    created: datetime
    photos: int
    followers: int
    following: int


class Profile(User):
    """Somebody, and how he and the one who asks stand to each other."""

    followed_by_you: bool
    follows_you: bool


class Me(User):
    """Oneself."""

    id: str
    email: str | None


class Session(Answer):
    """A session that has begun; its cookie is in the answer's headers."""

    user: Me
    csrf_token: str = Field(description="For changes by the cookie where neither Origin nor Sec-Fetch-Site is sent.")


class Token(Answer):
    """An API token; its text is told once, when it is made."""

    id: str
    name: str
    created: datetime


class NewToken(Token):
    """An API token with its text."""

    token: str


class Tokens(Answer):
    """All API tokens of a user."""

    tokens: list[Token]


class UserPage(Answer):
    """A page of people."""

    users: list[User]
    next: str | None = Field(description="Cursor of the next page; null on the last one.")


class SignUp(Request):
    """A new account."""

    username: Annotated[str, Field(min_length=3, max_length=30, pattern=r"^[A-Za-z0-9_]{3,30}$")]
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    email: Annotated[str, Field(max_length=MAX_EMAIL)] | None = None
    password: Password


class LogIn(Request):
    """User name or email address, and password."""

    login: Annotated[str, Field(min_length=1, max_length=MAX_EMAIL)]
    password: AnyPassword


class MakeToken(Request):
    """A new API token. Who is not logged in gives login and password with it."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    login: Annotated[str, Field(min_length=1, max_length=MAX_EMAIL)] | None = None
    password: AnyPassword | None = None


class ChangeMe(Request):
    """What is to be changed of one's profile; an empty email address removes it."""

    name: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    email: Annotated[str, Field(max_length=MAX_EMAIL)] | None = None
    bio: Annotated[str, Field(max_length=MAX_BIO)] | None = None


class ChangePassword(Request):
    """Another password; ends all sessions."""

    old_password: AnyPassword
    new_password: Password


# -- photos


class Place(Request):
    """Degrees north and east."""

    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]


class Picture(Answer):
    """One rendition of a photo."""

    size: SizeName
    format: FormatName | None = Field(description="null: as the original came, JPEG mostly.")
    width: int
    height: int
    url: str


class Photo(Answer):
    """A photo's record."""

    id: PhotoId
    owner: Username
    title: str
    caption: str
    tags: list[str]
    visibility: Word
    created: datetime
    taken: datetime | None
    place: Place | None
    camera: str
    mime: str
    width: int
    height: int
    size_bytes: int
    animated: bool
    placeholder: str = Field(description="Thumbhash, base64.")
    likes: int
    comments: int
    views: int
    pictures: list[Picture] = Field(description="Where its pictures are. URLs of photos that are not public end.")


class UploadedPhoto(Photo):
    """A photo that was uploaded, and one's own photos that are the same or look much the same."""

    alike: list[PhotoId]


class PhotoPage(Answer):
    """A page of photos."""

    photos: list[Photo]
    next: str | None = Field(description="Cursor of the next page; null on the last one.")


class PhotoList(Answer):
    """Some photos."""

    photos: list[Photo]


class SearchPage(PhotoPage):
    """A page of photos that were found."""

    spelt: list[str] | None = Field(description="Words that were searched for instead of misspelt ones.")


class ChangePhoto(Request):
    """What is to be changed of a photo; what is left out stays. ``place``: null forgets it."""

    title: Annotated[str, Field(max_length=MAX_TITLE)] | None = None
    caption: Annotated[str, Field(max_length=MAX_CAPTION)] | None = None
    tags: list[Annotated[str, Field(max_length=60)]] | None = Field(default=None, max_length=60)
    visibility: Word | None = None
    place: Place | None = None


class AskUpload(Request):
    """A photo that is to be uploaded straight to a storage machine."""

    size: Annotated[int, Field(ge=1, le=2**40, description="Bytes of the file, exactly.")]
    name: Annotated[str, Field(max_length=1000)] = ""
    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    caption: Annotated[str, Field(max_length=MAX_CAPTION)] = ""
    tags: list[Annotated[str, Field(max_length=60)]] = Field(default_factory=list, max_length=60)
    visibility: Word = "public"
    keep_place: bool = True


class Upload(Answer):
    """Where to upload a photo: POST to ``uploadUrl``, or tus 1.0 at ``tusUrl``, with the ticket as bearer token."""

    photo: PhotoId
    upload_url: str
    tus_url: str
    ticket: str
    expires: datetime


class UploadForm(Request):
    """The fields of a form beside its file."""

    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    caption: Annotated[str, Field(max_length=MAX_CAPTION)] = ""
    tags: Annotated[str, Field(max_length=2000, description="With commas or blanks between them.")] = ""
    visibility: Word = "public"
    keep_place: Literal["true", "false"] = "true"


# -- talk


class Comment(Answer):
    """A comment."""

    id: str
    author: Username
    text: str
    created: datetime


class CommentPage(Answer):
    """A page of comments, oldest first."""

    comments: list[Comment]
    next: str | None = Field(description="Cursor of the next page; null on the last one.")


class WriteComment(Request):
    """A new comment."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_COMMENT)]


class React(Request):
    """A reaction."""

    reaction: Reaction = "like"


class Reactions(Answer):
    """How people reacted, and how the one who asks did."""

    counts: dict[str, int]
    yours: Reaction | None


# -- queries


class NoQuery(Request):
    """No parameters."""


class PageQuery(Request):
    """Which page."""

    cursor: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="``next`` of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


class SearchQuery(PageQuery):
    """What is searched for."""

    q: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_TEXT)] = Field(
        description="Words, #tag, @user, on:, before:, after: (2024, 2024-07, 2024-07-31), near:lat,long[,km].",
        examples=["beach #summer after:2024"],
    )


class TopQuery(Request):
    """Of which time."""

    period: Period = "week"
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


class PictureQuery(Request):
    """In which format."""

    format: FormatName | None = Field(default=None, description="By default what Accept names.")
