"""Signatures of URLs: right for one photo until one second, and for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.fid import Fid
from haystack.signed_urls import UrlSigner

SIGNER = UrlSigner(b"s" * 32)
FIDS = st.builds(
    Fid, st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
)
SECONDS = st.integers(0, 2**53)


def fields(query: str) -> tuple[str, str]:
    expires, signature = query.split("&")
    return expires.removeprefix("e="), signature.removeprefix("s=")


@given(FIDS, SECONDS)
def test_what_was_signed_holds_until_then(fid: Fid, expires: int) -> None:
    assert SIGNER.valid_until(fid, *fields(SIGNER.query(fid, expires))) == expires


@given(FIDS, SECONDS, st.data())
def test_it_holds_for_nothing_else(fid: Fid, expires: int, data: st.DataObject) -> None:
    text, signature = fields(SIGNER.query(fid, expires))
    other = data.draw(FIDS.filter(lambda one: one != fid))
    assert SIGNER.valid_until(other, text, signature) == 0
    later = data.draw(SECONDS.filter(lambda one: one != expires))
    assert SIGNER.valid_until(fid, str(later), signature) == 0
    place = data.draw(st.integers(0, len(signature) - 1))
    letter = data.draw(st.sampled_from("ABCDabcd0123-_").filter(lambda one: one != signature[place]))
    changed = signature[:place] + letter + signature[place + 1 :]
    assert SIGNER.valid_until(fid, text, changed) == 0
    assert UrlSigner(b"t" * 32).valid_until(fid, text, signature) == 0


@pytest.mark.parametrize("expires", ["", "-1", "+5", "05", " 5", "5 ", "٥", "1e3", "9" * 17, None])
def test_a_number_has_one_spelling(expires: str | None) -> None:
    fid = Fid(1, 2, 3)
    signature = fields(SIGNER.query(fid, 5))[1]
    assert SIGNER.valid_until(fid, expires, signature) == 0


@pytest.mark.parametrize("signature", ["", "é" * 22, "A" * 21, "A" * 23, None])
def test_what_is_no_signature(signature: str | None) -> None:
    assert SIGNER.valid_until(Fid(1, 2, 3), "5", signature) == 0


def test_without_a_secret_nothing_is_right() -> None:
    unable = UrlSigner(None)
    assert not unable.able and SIGNER.able
    assert unable.valid_until(Fid(1, 2, 3), *fields(SIGNER.query(Fid(1, 2, 3), 5))) == 0
    with pytest.raises(ValueError, match="without a secret"):
        unable.query(Fid(1, 2, 3), 5)
