"""A Store says which other servers its machine has, and an assign hands that on."""

from __future__ import annotations

from typing import Any

import pytest

from directory.messages import parse_registration
from haystack.errors import InvalidRequest

STORE = {
    "storeId": "6f1c7b1e-0000-4000-8000-000000000001",
    "url": "10.0.0.5:8080",
    "adminUrl": "10.0.0.5:18080",
    "publicUrl": "10.0.0.5:8080",
}


def services(value: Any) -> dict[str, str]:
    return parse_registration({**STORE, "services": value}).store.services


def test_names_and_addresses_are_kept() -> None:
    assert services({"intake": "10.0.0.5:8300", "x-1": "https://a.example"}) == {
        "intake": "10.0.0.5:8300",
        "x-1": "https://a.example",
    }
    assert services(None) == services({}) == {}
    assert parse_registration(STORE).store.services == {}


def test_a_name_that_is_none_is_left_out() -> None:
    assert services({"Intake": "10.0.0.5:8300", 'a"b': "10.0.0.5:1"}) == {}


@pytest.mark.parametrize("value", [["intake"], {"intake": 3}, {"intake": 'h:1"'}, {f"s{n}": "h:1" for n in range(17)}])
def test_what_is_malformed_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="services"):
        services(value)
