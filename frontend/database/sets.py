"""Conditions with many values in one parameter, so that the statement has the same text however many there are.

Databases plan a statement once then, and it is not put together anew for each length of a list.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Text, any_, bindparam, column, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from frontend.database.engine import is_postgres


def one_of(
    connection: Connection, which: Column[Any], values: Collection[int] | Collection[str]
) -> ColumnElement[bool]:
    """True of the rows whose column has one of the values."""
    if is_postgres(connection):
        return which == any_(bindparam(None, list(values), type_=ARRAY(which.type)))
    elements = func.json_each(literal(json.dumps(list(values)), Text)).table_valued(column("value"))
    return which.in_(select(elements.c.value))
