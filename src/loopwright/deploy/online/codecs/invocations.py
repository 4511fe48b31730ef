"""MLflow's scoring protocol, as its server of version 3.17 speaks it: `/invocations` and `/version`.

All its forms of tables are read: `dataframe_split`, `dataframe_records`, `instances`, `inputs`, CSV and Parquet. Lists
without names are taken by position. The reply has what the model's `predict` gives: labels and no probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from operator import itemgetter
from typing import Any

import msgspec

from loopwright.deploy.answers import Answers
from loopwright.deploy.online.codecs.base import Asked, Reply, Row
from loopwright.deploy.online.codecs.json_bodies import ABSENT, decoded, is_absent
from loopwright.deploy.online.codecs.options import NAMES, Options, options_of
from loopwright.deploy.online.codecs.tables import CSV, JSON, PARQUET, Tables, media_type
from loopwright.deploy.online.codecs.values import (
    TYPES,
    array_of,
    blocks,
    check_names,
    entities_of,
    far,
    no_rows,
    packed,
    shown,
    too_far,
)
from loopwright.deploy.online.decode import Decoder
from loopwright.deploy.online.wire import WrongType
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch, listing
from loopwright.records import Signature

__all__ = ["CONTENT_TYPES", "FORMS", "IDS_HEADER", "Invocations", "refused", "version"]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
CONTENT_TYPES = (JSON, CSV, PARQUET)
IDS_HEADER = b"x-prediction-ids"
#: Most ids that go into the header; proxies cut what is much longer.
IDS_IN_HEADER = 64
#: Orders of columns whose decoders are kept.
_MOST_ORDERS = 32

_VALID = f"A JSON object with exactly one of {', '.join(FORMS)}, and params."
_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder()


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    dataframe_split: msgspec.Raw = ABSENT
    dataframe_records: msgspec.Raw = ABSENT
    instances: msgspec.Raw = ABSENT
    inputs: msgspec.Raw = ABSENT
    params: dict[str, Any] | None = None


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: msgspec.Raw
    columns: list[Any] | None = None
    index: msgspec.Raw = ABSENT


_body = msgspec.json.Decoder(_Body)
_split = msgspec.json.Decoder(_Split)


class Invocations:
    """The codec of `/invocations`.

    Parameters
    ----------
    signature
        What a row must look like.
    entity
        The column that names a row's entity; it may be one of the inputs or come in addition to them.
    """

    def __init__(self, signature: Signature, entity: str | None = None) -> None:
        self.signature = signature
        self.entity = entity
        self._tables = Tables(signature, entity)
        self._records = Decoder(signature, entity)
        self._columns = {column.name: column for column in signature.inputs}
        self._own_entity = entity if entity is not None and entity not in self._columns else None
        self._fields = [*signature.names, *([self._own_entity] if self._own_entity else [])]
        self._times = [at for at, column in enumerate(signature.inputs) if column.type == "datetime"]
        self._orders: dict[tuple[str, ...], msgspec.json.Decoder[Any]] = {}
        self._rows = self._row_decoder(list(signature.names))
        self._lists = self._list_decoder()

    def _row_decoder(self, names: list[str]) -> msgspec.json.Decoder[Any]:
        """Return a decoder of lists of rows that have the values of these columns. A caller keeps to one order."""
        known = self._orders.get(tuple(names))
        if known is not None:
            return known
        kinds = []
        for name in names:
            column = self._columns.get(name)
            kind = str | int | None if column is None else TYPES[column.type]
            kinds.append(kind if column is None or column.required else kind | None)
        made = msgspec.json.Decoder(list[tuple[tuple(kinds)]])  # type: ignore[misc]
        if len(self._orders) < _MOST_ORDERS:
            self._orders[tuple(names)] = made
        return made

    def _list_decoder(self) -> msgspec.json.Decoder[Any]:
        """Return a decoder of one list for each column."""
        fields: list[Any] = []
        for number, name in enumerate(self._fields):
            column = self._columns.get(name)
            kind: Any = str | int if column is None else TYPES[column.type]
            if column is not None and column.required:
                fields.append((f"f{number}", list[kind]))
            else:
                fields.append((f"f{number}", list[kind | None] | None, None))
        rename = {f"f{number}": name for number, name in enumerate(self._fields)}
        lists = msgspec.defstruct("Lists", fields, rename=rename, kw_only=True, forbid_unknown_fields=True)
        return msgspec.json.Decoder(lists)

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return what a scoring request asks; the notes are `Options`.

        Raises
        ------
        WrongType
            The content type is none of `CONTENT_TYPES`, or has another parameter than a charset of UTF-8.
        InvalidInput
            The body is no such document, has no rows, or `params` that have no meaning here.
        SchemaMismatch
            A row does not fit; the message names row and field.
        """
        kind, parameters = media_type(headers.get(b"content-type", b""))
        _check_type(kind, parameters)
        if kind == CSV:
            asked = self._tables.csv(body)
        elif kind == PARQUET:
            asked = self._tables.parquet(body)
        else:
            return self._json(body)
        asked.notes = Options()
        return asked

    def _json(self, body: bytes | bytearray) -> Asked:
        if body.lstrip()[:1] == b"[":
            raise InvalidInput("The body is a list.", valid=_VALID)
        found: _Body = decoded(body, _body, _VALID, _Body.__struct_fields__)
        forms = [name for name in FORMS if not is_absent(getattr(found, name))]
        if len(forms) != 1:
            raise InvalidInput(f"The body has {listing(forms) if forms else 'no rows'}.", valid=_VALID)
        notes = Options(**_options(found.params))
        raw = bytes(getattr(found, forms[0]))
        if forms[0] == "dataframe_split":
            asked = self._split_rows(raw)
        elif forms[0] == "dataframe_records":
            asked = self._of_records(raw, forms[0])
        else:
            asked = self._tensor(raw, forms[0])
        if notes.entity is not None:
            asked.entities = [entity or notes.entity for entity in asked.entities or [None] * asked.n]
        asked.notes = notes
        return asked

    def _tensor(self, raw: bytes, form: str) -> Asked:
        """Return the rows of `instances` or `inputs`: lists by position, records, or a list for each column."""
        start = raw.lstrip()
        if start[:1] == b"{":
            return self._of_lists(raw, form)
        inner = start[1:].lstrip()[:1]
        if inner == b"{":
            return self._of_records(raw, form)
        if inner == b"[":
            return self._by_position(raw, list(self.signature.names), form)
        return self._of_one_column(raw, form)

    def _of_one_column(self, raw: bytes, form: str) -> Asked:
        values = decoded(raw, _any, f"{form} is a list of rows.")
        if not isinstance(values, list):
            raise InvalidInput(f"{form} is {shown(values)}.", valid="It is a list of rows.")
        if not values:
            raise no_rows()
        if len(self._columns) != 1:
            raise SchemaMismatch(
                f"{form} is a list of values, and the model has {len(self._columns)} inputs.",
                valid=f"Send a list of rows, each a list or a record of: {listing(self.signature.names)}.",
            )
        return self._asked({self.signature.names[0]: values}, len(values))

    def _split_rows(self, raw: bytes) -> Asked:
        valid = "dataframe_split is {columns, index, data}; data is a list of rows, each a list of values."
        table: _Split = decoded(raw, _split, valid, _Split.__struct_fields__)
        names = table.columns
        if names is None or names == list(range(len(self._columns))):
            names = list(self.signature.names)
        check_names(names, self.signature, self.entity)
        return self._by_position(bytes(table.data), names, "data")

    def _by_position(self, raw: bytes, names: list[str], form: str) -> Asked:
        """Return rows that are lists of the values of these columns."""
        whole = names == list(self.signature.names)
        try:
            rows = (self._rows if whole else self._row_decoder(names)).decode(raw)
        except (ValueError, RecursionError):
            return self._by_position_slowly(raw, names, form)
        if not rows:
            raise no_rows()
        if names != self._fields:
            rows = _reordered(rows, names, self._fields)
        return self._asked_rows(rows)

    def _by_position_slowly(self, raw: bytes, names: list[str], form: str) -> Asked:
        """Return rows that no typed decoder takes, or say which value is wrong."""
        rows = decoded(raw, _any, f"{form} is a list of rows, each a list of values.")
        for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
            if not isinstance(row, list) or len(row) != len(names):
                has = f"has {len(row)} values" if isinstance(row, list) else "is no list"
                raise SchemaMismatch(
                    f"Row {number} is {shown(row)}, which {has}.",
                    valid=f"It is a list of {len(names)} values: {listing(names)}.",
                    row=number,
                )
        columns = [list(values) for values in zip(*rows, strict=True)]
        return self._asked(dict(zip(names, columns, strict=True)), len(rows))

    def _of_records(self, raw: bytes, form: str) -> Asked:
        try:
            rows, single = self._records.decode(raw)
        except InvalidInput as error:
            return self._of_records_slowly(raw, form, error)
        except RecursionError:
            raise InvalidInput(f"{form} is nested too deeply.", valid="It is a list of records.") from None
        if single:
            raise InvalidInput(f"{form} is one record.", valid="It is a list of records.")
        return self._asked_rows(rows)

    def _of_records_slowly(self, raw: bytes, form: str, reason: InvalidInput) -> Asked:
        """Return records that the typed decoder does not take, because pandas writes 3 as 3.0, else say what is wrong."""
        try:
            records = _any.decode(raw)
        except (ValueError, RecursionError):
            raise reason from None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise reason
        if not records:
            raise no_rows()
        names = dict.fromkeys(name for record in records for name in record)
        if any(name not in self._fields for name in names):
            raise reason
        columns = {}
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.required and not all(name in record for record in records):
                raise reason
            columns[name] = [record.get(name) for record in records]
        check_names(list(names), self.signature, self.entity, "field")
        return self._asked(columns, len(records))

    def _of_lists(self, raw: bytes, form: str) -> Asked:
        """Return rows from one list for each column; values that are no lists are one row."""
        try:
            found = msgspec.structs.astuple(self._lists.decode(raw))
        except (ValueError, RecursionError):
            return self._of_lists_slowly(raw, form)
        lists = {name: values for name, values in zip(self._fields, found, strict=True) if values is not None}
        lengths = {len(values) for values in lists.values()}
        if len(lengths) != 1 or 0 in lengths:
            return self._of_lists_slowly(raw, form)
        return self._asked(lists, lengths.pop(), checked=True)

    def _of_lists_slowly(self, raw: bytes, form: str) -> Asked:
        valid = f"{form} is a list of rows, or an object with a list of values for each column."
        found = decoded(raw, _any, valid)
        check_names(list(found), self.signature, self.entity)
        if found and not any(isinstance(values, list) for values in found.values()):
            found = {name: [value] for name, value in found.items()}
        n = -1
        for name, values in found.items():
            if isinstance(values, list) and all(isinstance(one, list) and len(one) == 1 for one in values):
                # What NumPy has as a column of a matrix.
                values = found[name] = [one[0] for one in values]
            if not isinstance(values, list) or n not in {-1, len(values)}:
                has = f"{len(values)} values" if isinstance(values, list) else shown(values)
                raise SchemaMismatch(
                    f"The column {name!r} has {has}.", valid="All have a list of the same length.", field=name
                )
            n = len(values)
        if n < 1:
            raise no_rows()
        return self._asked(found, n)

    def _asked_rows(self, rows: list[Row]) -> Asked:
        """Return rows that have the values of all fields, those of the entity last where it is no input."""
        for at in self._times:
            for number, row in enumerate(rows):
                if far(row[at]):
                    raise too_far(self.signature.inputs[at], number, row[at])
        return Asked(len(rows), rows=rows, entities=self._records.entities(rows))

    def _asked(self, columns: dict[str, list[Any]], n: int, *, checked: bool = False) -> Asked:
        """Return columns of what JSON has for values; `checked` where a typed decoder made them."""
        entities: list[str | None] | None = None
        if self._own_entity is not None:
            entities = [None] * n
            if self._own_entity in columns:
                entities = _who(self._own_entity, columns.pop(self._own_entity))
        make = packed if checked else array_of
        typed = {name: make(self._columns[name], values) for name, values in columns.items()}
        made = blocks(typed, self.signature, n)
        if self.entity is not None and self._own_entity is None:
            entities = entities_of(self._columns[self.entity], made[self.entity])
        return Asked(n, columns=made, entities=entities)

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return ``{"predictions": [...]}``, as MLflow's clients read it; several outputs are a list for each row.

        The prediction ids stand beside it, which those clients allow, and up to 64 of them in the header
        ``x-prediction-ids``, separated by commas.
        """
        end = at + asked.n
        ids = answers.prediction_id[at:end]
        body = _encode({"predictions": answers.prediction[at:end].tolist(), "prediction_ids": ids})
        headers = (
            [(IDS_HEADER, ",".join(ids).encode("latin-1", "replace"))] if len(ids) <= IDS_IN_HEADER else []
        )
        return Reply(body, JSON, headers)


def _check_type(kind: bytes, parameters: Mapping[str, str]) -> None:
    if kind not in CONTENT_TYPES:
        raise WrongType(
            f"The content type {kind.decode('latin-1')[:100]!r} is not read here.",
            valid=f"Valid: {listing(known.decode() for known in CONTENT_TYPES)}.",
        )
    unknown = [name for name in parameters if name != "charset"]
    if unknown:
        raise WrongType(
            f"The content type has a parameter {unknown[0][:100]!r}.", valid="Its only parameter is charset."
        )
    if parameters.get("charset", "utf-8") not in {"utf-8", "utf8"}:
        raise WrongType(f"The charset {parameters['charset'][:100]!r} is not read here.", valid="Send UTF-8.")


def _options(params: Mapping[str, Any] | None) -> dict[str, Any]:
    for name in params or {}:
        if name not in NAMES:
            error = NotFound.among("parameter", name[:100], NAMES)
            raise InvalidInput(
                f"The parameter {name[:100]!r} cannot be given to this model.",
                valid=error.valid,
                field=name[:100],
            )
    return options_of(params)


def _reordered(rows: list[Row], names: list[str], fields: list[str]) -> list[Row]:
    """Return rows in the order of the fields, with None for those that they do not have."""
    places = {name: at for at, name in enumerate(names)}
    if len(names) == len(fields) and len(names) > 1:
        pick = itemgetter(*(places[name] for name in fields))
        return [pick(row) for row in rows]
    at = [places.get(name, -1) for name in fields]
    return [tuple(None if place < 0 else row[place] for place in at) for row in rows]


def _who(name: str, values: list[Any]) -> list[str | None]:
    for row, value in enumerate(values):
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise SchemaMismatch(
                f"Row {row}, field {name!r}: {shown(value)} does not fit.",
                valid="An entity is text or a whole number.",
                row=row,
                field=name,
            )
    return [None if value is None else str(value) for value in values]


@cache
def version() -> str:
    """Return the version of MLflow whose protocol this is, for `/version`: the installed one, without importing it."""
    from importlib.metadata import version as installed

    return installed("mlflow")


def refused(error: LoopwrightError) -> dict[str, Any]:
    """Return an error as MLflow's server has it; what programs need stands beside it."""
    code = {404: "RESOURCE_DOES_NOT_EXIST", 503: "TEMPORARILY_UNAVAILABLE", 403: "PERMISSION_DENIED"}
    known = code.get(error.http_status, "BAD_REQUEST" if error.http_status < 500 else "INTERNAL_ERROR")
    return {"error_code": known, "message": str(error)} | {
        name: value for name, value in error.attrs.items() if name not in {"error_code", "message"}
    }
