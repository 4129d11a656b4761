"""Streaming parser of ``multipart/form-data`` (RFC 7578) with one file, as ``curl -F file=@x.jpg`` sends it.

The file's bytes go to a receiver as they come; nothing but a possible beginning of a boundary is held back. Other form
fields, before or after the file, are read over. Everything else has a bound: part headers, fields, preamble, epilogue.

A part that has a file name, or whose name is ``file``, is the file. A second one is refused.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from haystack.errors import InvalidRequest, TooLarge

MAX_BOUNDARY_BYTES: Final = 200
"""RFC 2046 says 70; some clients go beyond."""
MAX_PART_HEADER_BYTES: Final = 8 * 1024
MAX_SKIPPED_BYTES: Final = 64 * 1024
"""All form fields, preamble and epilogue together."""
MAX_PARTS: Final = 64
MAX_FILE_NAME_CHARACTERS: Final = 1024
FILE_FIELD_NAME: Final = "file"

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf';[ \t]*(?:({_NAME})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^";\s]*))?[ \t]*', re.DOTALL)
_MEDIA_TYPE = re.compile(rf"({_NAME}/{_NAME})[ \t]*(;.*)?", re.DOTALL)
_DISPOSITION = re.compile(rf"({_NAME})[ \t]*(;.*)?", re.DOTALL)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class FilePart:
    """What a form says about its file.

    Parameters
    ----------
    field_name: name of the form field.
    file_name: the last component of the name that the client gave, or None.
    content_type: as the client gave it, or None.
    """

    field_name: str
    file_name: str | None
    content_type: str | None


class FileReceiver(Protocol):
    """Takes the file of a form."""

    def file_begin(self, part: FilePart) -> None:
        """The file begins. May raise to refuse it."""

    def file_data(self, piece: bytes) -> None:
        """The next piece of the file, never empty. May raise to refuse it."""


class _Expect(enum.Enum):
    PREAMBLE = enum.auto()
    AFTER_BOUNDARY = enum.auto()
    PART_HEADERS = enum.auto()
    FIELD = enum.auto()
    FILE = enum.auto()
    EPILOGUE = enum.auto()


def is_multipart(content_type: str | None) -> bool:
    """Whether this Content-Type announces a form."""
    return content_type is not None and content_type.lower().lstrip().startswith("multipart/form-data")


def parse_boundary(content_type: str) -> bytes:
    """The boundary of a multipart Content-Type. Raises :class:`InvalidRequest` when it has none that is valid."""
    match = _MEDIA_TYPE.fullmatch(content_type.strip())
    parameters = _parse_parameters(match[2] or "") if match else {}
    boundary = parameters.get("boundary", "")
    if len(boundary) > MAX_BOUNDARY_BYTES or _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidRequest("malformed form: Content-Type multipart/form-data needs a valid boundary=…")
    return boundary.encode("ascii")


class MultipartParser:
    """Parser of one form. Give it the body with :meth:`feed`, then call :meth:`finish`.

    Parameters
    ----------
    boundary: see :func:`parse_boundary`.
    receiver: gets the file.

    All methods raise :class:`InvalidRequest` for what is no form with one file, and what the receiver raises.
    """

    def __init__(self, boundary: bytes, receiver: FileReceiver) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._receiver = receiver
        self._buffer = bytearray(b"\r\n")  # So that a boundary at the very beginning looks like any other.
        self._expect = _Expect.PREAMBLE
        self._file_seen = False
        self._skipped_bytes = 0
        self._parts = 0

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._buffer += piece
        while self._step():
            pass

    def finish(self) -> None:
        """The body is complete: check that the form was."""
        if self._expect is not _Expect.EPILOGUE:
            raise InvalidRequest("malformed form: the body ends before the form's end boundary")
        if not self._file_seen:
            raise InvalidRequest(f"the form has no file: send one, as in curl -F {FILE_FIELD_NAME}=@photo.jpg")

    def _step(self) -> bool:
        """Take something off the buffer; False when more input is needed."""
        if self._expect is _Expect.AFTER_BOUNDARY:
            return self._take_boundary_end()
        if self._expect is _Expect.PART_HEADERS:
            return self._take_part_headers()
        if self._expect is _Expect.EPILOGUE:
            self._skip(len(self._buffer))
            return False
        return self._take_content()

    def _take_content(self) -> bool:
        """File, field or preamble, up to the next boundary or to what may be the beginning of one."""
        end = self._buffer.find(self._delimiter)
        if end >= 0:
            self._pass_on(end)
            del self._buffer[: len(self._delimiter)]
            self._expect = _Expect.AFTER_BOUNDARY
            return True
        self._pass_on(len(self._buffer) - _possible_beginning(self._buffer, self._delimiter))
        return False

    def _pass_on(self, count: int) -> None:
        if self._expect is not _Expect.FILE:
            self._skip(count)
        elif count:
            piece = bytes(memoryview(self._buffer)[:count])
            del self._buffer[:count]
            self._receiver.file_data(piece)

    def _skip(self, count: int) -> None:
        self._skipped_bytes += count
        if self._skipped_bytes > MAX_SKIPPED_BYTES:
            raise TooLarge(f"the form has more than {MAX_SKIPPED_BYTES} bytes beside its file")
        del self._buffer[:count]

    def _take_boundary_end(self) -> bool:
        """What follows a boundary: ``--`` after the last part, else optional blanks and the line end."""
        buffer = self._buffer
        if buffer.startswith(b"--"):
            self._expect = _Expect.EPILOGUE
            return True
        if b"--".startswith(buffer):
            return False
        end = buffer.find(b"\r\n", 0, MAX_BOUNDARY_BYTES)
        padding = buffer[: end if end >= 0 else len(buffer)]
        if padding.rstrip(b"\r" if end < 0 else b"").strip(b" \t") or len(padding) >= MAX_BOUNDARY_BYTES:
            raise InvalidRequest("malformed form: a boundary is not followed by a line end")
        if end < 0:
            return False
        del buffer[:end]  # The line end stays: a part without headers has the empty line right behind it.
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"the form has more than {MAX_PARTS} parts")
        self._expect = _Expect.PART_HEADERS
        return True

    def _take_part_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_PART_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_PART_HEADER_BYTES:
                raise InvalidRequest(f"malformed form: part headers longer than {MAX_PART_HEADER_BYTES} bytes")
            return False
        block = bytes(memoryview(self._buffer)[:end])
        del self._buffer[: end + 4]
        self._begin_part(_parse_part_headers(block))
        return True

    def _begin_part(self, headers: dict[str, str]) -> None:
        name, file_name = _parse_disposition(headers.get("content-disposition"))
        if file_name is None and name != FILE_FIELD_NAME:
            self._expect = _Expect.FIELD
            return
        if self._file_seen:
            raise InvalidRequest("the form has more than one file; upload them one by one")
        self._file_seen = True
        self._expect = _Expect.FILE
        self._receiver.file_begin(FilePart(name, file_name or None, headers.get("content-type")))


def _possible_beginning(buffer: bytearray, delimiter: bytes) -> int:
    """Length of the end of ``buffer`` that may turn out to be the beginning of ``delimiter`` (which has one CR)."""
    start = buffer.rfind(b"\r", max(0, len(buffer) - len(delimiter) + 1))
    return len(buffer) - start if start >= 0 and delimiter.startswith(buffer[start:]) else 0


def _parse_part_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = _decode(line).partition(":")
        if not colon or re.fullmatch(_NAME, name) is None:
            raise InvalidRequest("malformed form: a part header line is not 'name: value'")
        headers.setdefault(name.lower(), value.strip(" \t"))
    return headers


def _decode(text: bytes) -> str:
    """Form headers are UTF-8 in practice; anything else keeps its bytes as latin-1."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _parse_parameters(text: str) -> dict[str, str]:
    """``; a=b; c="d e"`` as a dictionary with lower-case names."""
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise InvalidRequest("malformed form: a header's parameters cannot be read")
        position = match.end()
        name, value = match.groups()
        if name is None:
            continue
        if value.startswith('"'):
            value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
        if parameters.setdefault(name.lower(), value) != value:
            raise InvalidRequest(f"malformed form: parameter {name} is given twice")
    return parameters


def _parse_disposition(value: str | None) -> tuple[str, str | None]:
    """Field name and file name of a part; the file name is None when it has none."""
    match = _DISPOSITION.fullmatch(value) if value else None
    if match is None or match[1].lower() != "form-data":
        raise InvalidRequest("malformed form: each part needs Content-Disposition: form-data")
    parameters = _parse_parameters(match[2] or "")
    name = parameters.get("name", "")
    if "filename*" in parameters:
        return name, _clean_file_name(_decode_extended(parameters["filename*"]))
    if "filename" in parameters:
        return name, _clean_file_name(parameters["filename"])
    return name, None


def _decode_extended(value: str) -> str:
    """``UTF-8''na%C3%AFve.jpg`` (RFC 8187) as text."""
    charset, _, rest = value.partition("'")
    _, quote, encoded = rest.partition("'")
    if not quote or charset.lower() not in ("utf-8", "iso-8859-1"):
        raise InvalidRequest("malformed form: filename* must be UTF-8''… with percent-encoding")
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"malformed form: filename* is not {charset}") from error


def _clean_file_name(name: str) -> str:
    """The last component of a path, as some browsers send one."""
    if len(name) > MAX_FILE_NAME_CHARACTERS or _CONTROL.search(name):
        raise InvalidRequest(
            f"malformed form: a file name may have at most {MAX_FILE_NAME_CHARACTERS} characters, none of them control"
        )
    return re.split(r"[/\\]", name)[-1]
