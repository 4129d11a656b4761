"""Forms with one file: every case whole, byte by byte and split at random."""

from __future__ import annotations

import pytest
from http_harness import one_by_one, split_at
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack.errors import HaystackError, InvalidRequest, TooLarge
from haystack.http.multipart import FilePart, MultipartParser, is_multipart, parse_boundary

CURL = (
    b"--------------------------d74496d66958873e\r\n"
    b'Content-Disposition: form-data; name="file"; filename="x.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
)
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


class Receiver:
    def __init__(self) -> None:
        self.part: FilePart | None = None
        self.data = bytearray()

    def file_begin(self, part: FilePart) -> None:
        assert self.part is None
        self.part = part

    def file_data(self, piece: bytes) -> None:
        assert piece and isinstance(piece, bytes)
        self.data += piece


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


def file_part(body: bytes, name: str = 'filename="x.jpg"') -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="file"; {name}', body


def field(name: str, body: bytes) -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', body


def parse(pieces: list[bytes], boundary: bytes = b"B") -> tuple[FilePart, bytes]:
    receiver = Receiver()
    parser = MultipartParser(boundary, receiver)
    for piece in pieces:
        parser.feed(piece)
    parser.finish()
    assert receiver.part is not None
    return receiver.part, bytes(receiver.data)


def test_form_as_curl_sends_it() -> None:
    data = CURL + JPEG + b"\r\n--------------------------d74496d66958873e--\r\n"
    content_type = "multipart/form-data; boundary=------------------------d74496d66958873e"
    for pieces in ([data], one_by_one(data)):
        part, body = parse(pieces, parse_boundary(content_type))
        assert part == FilePart("file", "x.jpg", "image/jpeg")
        assert body == JPEG


GOOD: dict[str, tuple[bytes, bytes]] = {
    "one file": (form(file_part(JPEG)), JPEG),
    "empty file": (form(file_part(b"")), b""),
    "fields around": (form(field("a", b"1"), file_part(JPEG), field("b", b"2" * 1000)), JPEG),
    "no line end at the end": (form(file_part(b"abc"), end=b"--B--"), b"abc"),
    "preamble": (b"This is a form.\r\n" + form(file_part(b"abc")), b"abc"),
    "epilogue": (form(file_part(b"abc")) + b"That was it.\r\n--B\r\n", b"abc"),
    "blanks behind a boundary": (form(file_part(b"abc")).replace(b"--B\r\n", b"--B \t\r\n"), b"abc"),
    "nearly boundaries": (form(file_part(b"\r\n--A\r\n\r\r\n-\r\n--\r\n--")), b"\r\n--A\r\n\r\r\n-\r\n--\r\n--"),
    "line ends": (form(file_part(b"\r\n\r\n")), b"\r\n\r\n"),
    "lower-case headers": (form(("content-disposition:form-data;name=file;filename=x", b"abc")), b"abc"),
    "by field name alone": (form(field("file", b"abc")), b"abc"),
}


@pytest.mark.parametrize("way", ["whole", "bytes"])
@pytest.mark.parametrize("case", GOOD)
def test_good_form(case: str, way: str) -> None:
    data, expected = GOOD[case]
    _, body = parse([data] if way == "whole" else one_by_one(data))
    assert body == expected


LONG = "A: " + "b" * 9000
BAD: dict[str, tuple[bytes, type[HaystackError]]] = {
    "empty": (b"", InvalidRequest),
    "no end": (form(file_part(JPEG), end=b""), InvalidRequest),
    "cut in the end boundary": (form(file_part(b"abc"), end=b"--B-"), InvalidRequest),
    "cut in the headers": (b'--B\r\nContent-Disposition: form-data; name="file"\r\n', InvalidRequest),
    "no file": (form(field("a", b"1")), InvalidRequest),
    "nothing in it": (b"--B--\r\n", InvalidRequest),
    "two files": (form(file_part(b"a"), file_part(b"b")), InvalidRequest),
    "other boundary": (form(file_part(b"a")).replace(b"--B", b"--C"), InvalidRequest),
    "junk behind a boundary": (form(file_part(b"a\r\n--Boo\r\nb")), InvalidRequest),
    "long headers": (form((LONG, b"a")), InvalidRequest),
    "no disposition": (form(("Content-Type: a/b", b"a")), InvalidRequest),
    "other disposition": (form(("Content-Disposition: attachment; filename=x", b"a")), InvalidRequest),
    "header without colon": (form(("Content-Disposition", b"a")), InvalidRequest),
    "folded header": (form(('Content-Disposition: form-data;\r\n name="file"', b"a")), InvalidRequest),
    "unclosed quote": (form(('Content-Disposition: form-data; name="file', b"a")), InvalidRequest),
    "name twice": (form(('Content-Disposition: form-data; name="file"; name="b"', b"a")), InvalidRequest),
    "control in name": (form(file_part(b"a", 'filename="a\x00b"')), InvalidRequest),
    "long name": (form(file_part(b"a", f'filename="{"a" * 1025}"')), InvalidRequest),
    "bad extended name": (form(file_part(b"a", "filename*=x")), InvalidRequest),
    "extended name not UTF-8": (form(file_part(b"a", "filename*=UTF-8''%ff")), InvalidRequest),
    "extended name in another charset": (form(file_part(b"a", "filename*=koi8-r''a")), InvalidRequest),
    "many fields": (form(*[field("a", b"")] * 65), InvalidRequest),
    "large field": (form(field("a", b"x" * 70_000), file_part(b"a")), TooLarge),
    "large preamble": (b"x" * 70_000 + form(file_part(b"a")), TooLarge),
    "large epilogue": (form(file_part(b"a")) + b"x" * 70_000, TooLarge),
}


@pytest.mark.parametrize("way", ["whole", "bytes"])
@pytest.mark.parametrize("case", BAD)
def test_bad_form(case: str, way: str) -> None:
    data, error = BAD[case]
    with pytest.raises(error):
        parse([data] if way == "whole" else one_by_one(data))


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ('filename="x.jpg"', "x.jpg"),
        ("filename=x.jpg", "x.jpg"),
        ('filename="näïve 写真.jpg"', "näïve 写真.jpg"),
        ("filename*=UTF-8''na%C3%AFve.jpg", "naïve.jpg"),
        ("filename*=utf-8'en'a%20b.jpg", "a b.jpg"),
        ("filename*=iso-8859-1''%E4.jpg", "ä.jpg"),
        ("filename=\"fallback.jpg\"; filename*=UTF-8''%E2%82%AC.jpg", "€.jpg"),
        (r'filename="a\"b;c\\\\d.jpg"', "d.jpg"),
        (r'filename="a\"b;c.jpg"', 'a"b;c.jpg'),
        (r'filename="C:\photos\x.jpg"', "x.jpg"),
        ('filename="../../etc/passwd"', "passwd"),
        ("filename*=UTF-8''..%2F..%2Fpasswd", "passwd"),
        ('filename=""', None),
    ],
)
def test_file_names(given_name: str, expected: str | None) -> None:
    part, _ = parse([form(file_part(b"abc", given_name))])
    assert part.file_name == expected


def test_latin_1_file_name() -> None:
    part, _ = parse([form(file_part(b"abc", 'filename="?.jpg"')).replace(b"?", b"\xe4")])
    assert part.file_name == "ä.jpg"


def test_boundaries() -> None:
    assert parse_boundary('multipart/form-data; charset=utf-8; boundary="a b:c"') == b"a b:c"
    assert parse_boundary("Multipart/Form-Data;boundary=x") == b"x"
    for bad in ("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a\r\nb"'):
        with pytest.raises(InvalidRequest):
            parse_boundary(bad)
    for bad in ("multipart/form-data; boundary=" + "a" * 201, 'multipart/form-data; boundary="a "', "boundary=a"):
        with pytest.raises(InvalidRequest):
            parse_boundary(bad)
    assert is_multipart("multipart/form-data; boundary=x")
    assert not is_multipart("image/jpeg")
    assert not is_multipart(None)


def test_file_is_not_held_back() -> None:
    receiver = Receiver()
    parser = MultipartParser(b"B", receiver)
    parser.feed(form(file_part(b""), end=b"").removesuffix(b"\r\n"))
    for _ in range(100):
        parser.feed(b"x" * 1000)
    assert len(receiver.data) == 100_000
    parser.feed(b"\r\n-")
    assert len(receiver.data) == 100_000
    parser.feed(b"\r\n--B--")
    parser.finish()
    assert receiver.data.endswith(b"x\r\n-")


def test_receiver_may_refuse() -> None:
    class Refusing(Receiver):
        def file_data(self, piece: bytes) -> None:
            raise TooLarge("too large")

    with pytest.raises(TooLarge):
        MultipartParser(b"B", Refusing()).feed(form(file_part(b"abc")))


CONTENT = st.lists(st.sampled_from([b"\r\n--", b"\r\n", b"--", b"\r", b"B", b"-", b"\n", b"x"]), max_size=40).map(
    b"".join
)


@settings(max_examples=300, deadline=None)
@given(CONTENT.filter(lambda body: b"\r\n--B" not in b"\r\n" + body), st.lists(st.integers(0, 1000)))
def test_any_content_comes_through_any_split(body: bytes, cuts: list[int]) -> None:
    data = form(field("a", b"1"), file_part(body), field("b", b"2"))
    assert parse(split_at(data, cuts))[1] == body


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"--B", b"\r\n", b"--", b'Content-Disposition: form-data; name="file"', b"\r\n\r\n", b"a", b" "]
        ),
        max_size=20,
    ).map(b"".join),
    st.lists(st.integers(0, 1000)),
)
def test_any_split_gives_the_same_verdict(data: bytes, cuts: list[int]) -> None:
    def verdict(pieces: list[bytes]) -> object:
        try:
            return parse(pieces)
        except InvalidRequest as error:
            return str(error)

    assert verdict(split_at(data, cuts)) == verdict([data])
