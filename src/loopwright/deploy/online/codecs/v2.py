"""The Open Inference Protocol, version 2, over HTTP: JSON, and its extension for binary tensors.

Each input of the model is one tensor of shape [n] or [n, 1]. Where all inputs are numbers, one tensor of shape [n, k]
under any name may hold them all. A time is text in ISO 8601, or an INT64 of microseconds since 1970 UTC. NaN and null are
missing values; infinity is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright.deploy.answers import Answers
from loopwright.deploy.online.codecs.answered import labels_as_text
from loopwright.deploy.online.codecs.base import Asked, Reply
from loopwright.deploy.online.codecs.json_bodies import ABSENT, decoded, is_absent
from loopwright.deploy.online.codecs.options import Options, options_of
from loopwright.deploy.online.codecs.tensors import DATATYPES, datatype_of, from_binary, from_json, to_binary
from loopwright.deploy.online.codecs.values import (
    array_of,
    blocks,
    cast,
    check,
    check_names,
    entities_of,
    no_rows,
    shown,
    wrong_type,
)
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, SchemaMismatch
from loopwright.records import Column, Signature, Task
from loopwright.registry.blocks import Blocks

__all__ = [
    "EXTENSIONS",
    "Inference",
    "OutputWanted",
    "Wanted",
    "metadata",
    "model_ready",
    "refused",
    "server_live",
    "server_metadata",
    "server_ready",
]

EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "loopwright"
#: The header that says how long the JSON before the binary data is.
LENGTH = b"inference-header-content-length"
BINARY = b"application/octet-stream"
#: The datatype in which each type of column is named in the metadata.
_OF_COLUMN = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "datetime": "BYTES",
}
_NUMBERS = {"integer", "long", "float", "double"}
_VALID = "An inference request: {inputs: [{name, shape, datatype, data}], outputs, parameters, id}."
#: Whose values would be somewhere else, or something else than what is asked for.
_NOT_HERE = ("classification", "shared_memory_region")

_encode = msgspec.json.Encoder().encode


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = ABSENT


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None
    # Some clients repeat what the path says.
    model_name: str | None = None
    model_version: str | None = None


_request = msgspec.json.Decoder(_Request)
_fields = tuple(_Request.__struct_fields__)


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Response(msgspec.Struct, omit_defaults=True, kw_only=True):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Tensor]


@dataclass(frozen=True, slots=True)
class OutputWanted:
    """One tensor of the reply: its name, whether as binary data, and whether it was asked for by name."""

    name: str
    binary: bool
    named: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Options):
    """Notes of an inference request: its own id, and the tensors to reply with, in their order."""

    id: str | None
    outputs: tuple[OutputWanted, ...]


class Inference:
    """The codec of inference requests.

    Parameters
    ----------
    signature
        What a row must look like.
    entity
        The tensor that names each row's entity; it may be one of the inputs or come in addition to them.
    deployment
        What replies call the model. The name of the model where it is empty.
    """

    def __init__(self, signature: Signature, entity: str | None = None, *, deployment: str = "") -> None:
        self.signature = signature
        self.entity = entity
        self.deployment = deployment
        self._columns = {column.name: column for column in signature.inputs}
        self._own_entity = entity if entity is not None and entity not in self._columns else None
        self._all_numbers = all(column.type in _NUMBERS for column in signature.inputs)
        kinds = {column.type for column in signature.inputs}
        self._all_double = kinds == {"double"}
        self._known = [one["name"] for one in _outputs(signature)]
        self._default = [name for name in self._known if name not in {"version", "variant"}]

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return what an inference request asks; the notes are `Wanted`.

        Raises
        ------
        InvalidInput
            The body is no inference request, or has no rows.
        SchemaMismatch
            A tensor does not fit; the message names it, and the row where there is one.
        """
        view = memoryview(body)
        json, binary = _split(view, headers.get(LENGTH))
        request: _Request = decoded(bytes(json) if binary is not None else body, _request, _VALID, _fields)
        tensors = self._tensors(request.inputs, binary)
        options = options_of(request.parameters) | self._timeout(request.parameters)
        notes = Wanted(id=request.id, outputs=self._wanted(request), **options)
        matrix = self._as_matrix(tensors)
        made = self._of_columns(tensors) if matrix is None else self._of_matrix(*matrix)
        return Asked(made.rows, columns=made, entities=self._entities(tensors, made, options), notes=notes)

    def _timeout(self, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what NVIDIA's clients call `timeout`, in microseconds."""
        wait = (parameters or {}).get("timeout")
        if wait is None or "timeout_ms" in (parameters or {}):
            return {}
        if isinstance(wait, bool) or not isinstance(wait, int) or wait < 1:
            raise InvalidInput(
                f"The parameter 'timeout' is {shown(wait)}.",
                valid="It is a whole number of microseconds above 0.",
                field="timeout",
            )
        return {"timeout_ms": min(wait, 2**63) / 1000.0}

    def _wanted(self, request: _Request) -> tuple[OutputWanted, ...]:
        default = _flag(request.parameters, "binary_data_output", False)
        if not request.outputs:
            return tuple(OutputWanted(name, default, named=False) for name in self._default)
        wanted: list[OutputWanted] = []
        for one in request.outputs:
            if one.name not in self._known:
                error = NotFound.among("output", one.name[:100], self._known)
                raise InvalidInput(error.fact, valid=error.valid, field=one.name[:100])
            if any(one.name == other.name for other in wanted):
                raise InvalidInput(f"The output {one.name!r} is asked for twice.", valid="Once is enough.")
            for parameter in _NOT_HERE:
                if one.parameters and one.parameters.get(parameter):
                    raise InvalidInput(
                        f"The parameter {parameter!r} of output {one.name!r} is not known here.",
                        valid="Known: binary_data.",
                        field=one.name,
                    )
            wanted.append(OutputWanted(one.name, _flag(one.parameters, "binary_data", default), named=True))
        return tuple(wanted)

    def _tensors(
        self, inputs: list[_Input], binary: memoryview | None
    ) -> list[tuple[_Input, NDArray[Any], NDArray[np.bool_] | None]]:
        """Return each tensor with its elements, shape (count,), and which of them are null."""
        if not inputs:
            raise InvalidInput("The request has no inputs.", valid=_VALID)
        found = []
        at = 0
        for one in inputs:
            count = _count(one)
            size = (one.parameters or {}).get("binary_data_size")
            if one.parameters and one.parameters.get("shared_memory_region"):
                raise InvalidInput(
                    f"The tensor {one.name[:100]!r} is in shared memory.",
                    valid="Send its data.",
                    field=one.name[:100],
                )
            if size is None:
                if is_absent(one.data):
                    raise InvalidInput(
                        f"The tensor {one.name[:100]!r} has no data.",
                        valid=f"Send data, or binary_data_size and the header {LENGTH.decode()}.",
                        field=one.name[:100],
                    )
                found.append((one, *from_json(one.data, one.datatype, one.shape, one.name[:100])))
                continue
            left = 0 if binary is None else len(binary) - at
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
                raise InvalidInput(
                    f"The tensor {one.name[:100]!r} has the binary_data_size {shown(size)}, and {left} bytes of binary "
                    "data are left.",
                    valid=f"The header {LENGTH.decode()} says where the JSON ends and binary data begins.",
                    field=one.name[:100],
                )
            assert binary is not None or size == 0
            data = binary[at : at + size] if binary is not None else memoryview(b"")
            found.append((one, from_binary(data, one.datatype, count, one.name[:100]), None))
            at += size
        if binary is not None and at != len(binary):
            raise InvalidInput(
                f"{len(binary) - at} bytes of binary data belong to no tensor.",
                valid="The tensors' binary_data_size add up to what follows the JSON.",
            )
        return found

    def _as_matrix(
        self, tensors: list[tuple[_Input, NDArray[Any], NDArray[np.bool_] | None]]
    ) -> tuple[_Input, NDArray[Any], NDArray[np.bool_] | None] | None:
        """Return the one tensor that holds all inputs, if there is one."""
        own = [one for one in tensors if one[0].name != self._own_entity]
        if len(own) != 1 or len(own[0][0].shape) != 2:
            return None
        one = own[0][0]
        width = one.shape[1]
        if one.name in self._columns and width == 1:
            return None
        if width != len(self._columns) or not self._all_numbers:
            if one.name in self._columns:
                return None
            reason = (
                f"which is a table of {width} columns, and the model has {len(self._columns)} inputs"
                if self._all_numbers
                else "and the model has inputs that are no numbers"
            )
            raise SchemaMismatch(
                f"There is one tensor {one.name[:100]!r} of shape {one.shape}, {reason}.",
                valid=self._shapes(),
                field=one.name[:100],
            )
        return own[0]

    def _shapes(self) -> str:
        first = self.signature.inputs[0]
        whole = f", or one tensor of shape [n, {len(self._columns)}]" if self._all_numbers else ""
        return f"One tensor of shape [n] or [n, 1] for each input, such as {first.name!r}{whole}."

    def _of_matrix(self, one: _Input, values: NDArray[Any], absent: NDArray[np.bool_] | None) -> Blocks:
        rows, width = one.shape
        matrix = values.reshape(rows, width)
        gaps = None if absent is None else absent.reshape(rows, width)
        if one.datatype == "FP64" and self._all_double:
            made = Blocks(rows, ((self.signature.names, matrix),), {})
            check(made, self.signature)
            return made
        columns = {
            column.name: cast(
                column, matrix[:, at], None if gaps is None else gaps[:, at], one.datatype, strict=True
            )
            for at, column in enumerate(self.signature.inputs)
        }
        return blocks(columns, self.signature, rows)

    def _of_columns(self, tensors: list[tuple[_Input, NDArray[Any], NDArray[np.bool_] | None]]) -> Blocks:
        check_names([one.name for one, _, _ in tensors], self.signature, self.entity, "tensor")
        rows = tensors[0][0].shape[0]
        columns = {}
        for one, values, absent in tensors:
            if (len(one.shape) == 2 and one.shape[1] != 1) or one.shape[0] != rows:
                first = tensors[0][0]
                raise SchemaMismatch(
                    f"The tensor {one.name!r} has the shape {one.shape}"
                    + (f", and {first.name!r} has {first.shape}." if one.shape[0] != rows else "."),
                    valid=f"All have the same number of rows. {self._shapes()}",
                    field=one.name,
                )
            if one.name != self._own_entity:
                columns[one.name] = self._column(self._columns[one.name], one.datatype, values, absent)
        return blocks(columns, self.signature, rows)

    def _column(
        self, column: Column, datatype: str, values: NDArray[Any], absent: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        if column.type == "datetime":
            if datatype == "INT64":
                # The smallest is NumPy's for a time that is missing.
                gone = values == np.iinfo(np.int64).min
                absent = gone if absent is None else absent | gone
                return cast(column, values.view("datetime64[us]"), absent, datatype, strict=True)
            if datatype == "BYTES":
                # Binary text has no null: an empty time is a missing one.
                return array_of(column, [value or None for value in values.tolist()])
        if datatype == "BYTES" and column.type != "string":
            raise wrong_type(column, datatype, f"Send {_OF_COLUMN[column.type]}.")
        return cast(column, values, absent, datatype, strict=True)

    def _entities(
        self,
        tensors: list[tuple[_Input, NDArray[Any], NDArray[np.bool_] | None]],
        made: Blocks,
        options: dict[str, Any],
    ) -> list[str | None] | None:
        given = options.get("entity")
        if self.entity is None:
            return [given] * made.rows if given is not None else None
        if self._own_entity is None:
            found = entities_of(self._columns[self.entity], made[self.entity])
        else:
            found = [None] * made.rows
            for one, values, absent in tensors:
                if one.name == self._own_entity:
                    found = _who(one, values, absent, made.rows)
        return found if given is None else [entity or given for entity in found]

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return an inference response.

        ``prediction`` has shape [n], or [n, m] for m outputs; ``probability`` [n, k] in the order of the classes, NaN
        (null in JSON) where a variant gives none; ``prediction_id`` [n]. Where several versions answered, the parameter
        ``versions`` has them all.
        """
        notes: Wanted = asked.notes
        end = at + asked.n
        versions = sorted(set(answers.version[at:end].tolist()))
        tensors, binary = [], []
        for wanted in notes.outputs:
            found = self._output(wanted, answers, at, end)
            if found is None:
                continue
            values, datatype = found
            tensor = _Tensor(wanted.name, datatype, list(values.shape))
            if wanted.binary:
                binary.append(to_binary(values, datatype))
                tensor.parameters = {"binary_data_size": len(binary[-1])}
            else:
                tensor.data = values.ravel().tolist()
            tensors.append(tensor)
        response = _Response(
            model_name=self.deployment or answers.model,
            model_version=str(int(answers.version[at])),
            id=notes.id,
            parameters={"versions": ",".join(map(str, versions))} if len(versions) > 1 else None,
            outputs=tensors,
        )
        json = _encode(response)
        if not binary:
            return Reply(json)
        return Reply(b"".join((json, *binary)), BINARY, [(LENGTH, b"%d" % len(json))])

    def _output(
        self, wanted: OutputWanted, answers: Answers, at: int, end: int
    ) -> tuple[NDArray[Any], str] | None:
        if wanted.name == "prediction":
            return _labels(answers.prediction[at:end], self.signature)
        if wanted.name == "probability":
            if answers.probability is not None:
                return answers.probability[at:end], "FP64"
            return (np.full((end - at, len(answers.classes)), np.nan), "FP64") if wanted.named else None
        if wanted.name == "version":
            return answers.version[at:end], "INT32"
        texts = answers.prediction_id if wanted.name == "prediction_id" else answers.variant
        return _objects(texts[at:end]), "BYTES"


def _split(view: memoryview, header: bytes | None) -> tuple[memoryview, memoryview | None]:
    """Return the JSON of a body, and the binary data behind it (None where no header tells of any)."""
    if header is None:
        return view, None
    text = header.strip()
    length = int(text) if text.isdigit() and len(text) < 19 else -1
    if not 0 < length <= len(view):
        raise InvalidInput(
            f"The header {LENGTH.decode()} is {text[:40].decode('latin-1')!r}, and the body has {len(view)} bytes.",
            valid="It is the length of the JSON at the body's beginning, in bytes.",
        )
    return view[:length], view[length:]


def _count(one: _Input) -> int:
    """Return how many elements a tensor has by its shape, which may be [n] or [n, k]."""
    shape, name = one.shape, one.name[:100]
    datatype_of(one.datatype, name)
    if not 1 <= len(shape) <= 2 or min(shape) < 0 or max(shape) > 2**40 or (len(shape) == 2 and shape[1] < 1):
        raise SchemaMismatch(
            f"The tensor {name!r} has the shape {shown(shape)}.",
            valid="Shapes are [n] and [n, k], with n and k from 1 on.",
            field=name,
        )
    if shape[0] == 0:
        raise no_rows()
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def _flag(parameters: Mapping[str, Any] | None, name: str, default: bool) -> bool:
    value = (parameters or {}).get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidInput(f"The parameter {name!r} is {shown(value)}.", valid="It is true or false.")
    return value


def _who(one: _Input, values: NDArray[Any], absent: NDArray[np.bool_] | None, rows: int) -> list[str | None]:
    if len(values) != rows:
        raise SchemaMismatch(
            f"The tensor {one.name!r} has {len(values)} elements.",
            valid=f"There are {rows} rows.",
            field=one.name,
        )
    if values.dtype.kind not in "iuO":
        raise SchemaMismatch(
            f"The tensor {one.name!r} is {one.datatype}.",
            valid="An entity is BYTES or a whole number.",
            field=one.name,
        )
    found = [None if value is None or value == "" else str(value) for value in values.tolist()]
    return (
        found if absent is None else [None if gone else who for who, gone in zip(found, absent, strict=True)]
    )


def _objects(texts: Sequence[str]) -> NDArray[Any]:
    made = np.empty(len(texts), dtype=object)
    made[:] = texts
    return made


def _label_datatype(signature: Signature) -> str:
    """Return the datatype of predictions: text as soon as labels are text, or not all of one type."""
    if signature.task is Task.regression or not signature.classes:
        return "FP64"
    kinds = {type(label) for label in signature.classes}
    only = kinds.pop() if len(kinds) == 1 else str
    return {bool: "BOOL", int: "INT64", float: "FP64"}.get(only, "BYTES")


def _labels(values: NDArray[Any], signature: Signature) -> tuple[NDArray[Any], str]:
    datatype = _label_datatype(signature)
    if datatype == "BYTES":
        made = _objects(labels_as_text(values.ravel().tolist()))
        return made.reshape(values.shape), datatype
    try:
        return values.astype(DATATYPES[datatype]), datatype
    except (TypeError, ValueError, OverflowError):
        # A variant with labels of another type.
        return _objects(labels_as_text(values.ravel().tolist())).reshape(values.shape), "BYTES"


def _outputs(signature: Signature) -> list[dict[str, Any]]:
    several = [len(signature.outputs)] if signature.outputs else []
    found: list[dict[str, Any]] = [
        {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
        {"name": "prediction", "datatype": _label_datatype(signature), "shape": [-1, *several]},
    ]
    if several:
        found[1]["parameters"] = {"names": ",".join(signature.outputs)}
    if signature.classes:
        classes = ",".join(map(str, signature.classes))
        found.append(
            {
                "name": "probability",
                "datatype": "FP64",
                "shape": [-1, len(signature.classes)],
                "parameters": {"classes": classes},
            }
        )
    found += [
        {"name": "version", "datatype": "INT32", "shape": [-1]},
        {"name": "variant", "datatype": "BYTES", "shape": [-1]},
    ]
    return found


def metadata(deployment: str, signature: Signature, versions: Sequence[int]) -> dict[str, Any]:
    """Return the metadata of a model: what it takes and gives.

    Parameters
    ----------
    deployment
        What it is called.
    signature
        What it takes. An input that may be absent has the parameter ``optional``.
    versions
        The versions that answer now.
    """
    inputs = []
    for column in signature.inputs:
        tensor: dict[str, Any] = {"name": column.name, "datatype": _OF_COLUMN[column.type], "shape": [-1]}
        parameters: dict[str, Any] = {} if column.required else {"optional": True}
        if column.type == "datetime":
            parameters["content_type"] = "datetime"
        if parameters:
            tensor["parameters"] = parameters
        inputs.append(tensor)
    return {
        "name": deployment,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": _outputs(signature),
    }


def server_metadata(name: str, version: str, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Any]:
    """Return the metadata of the server."""
    return {"name": name, "version": version, "extensions": list(extensions)}


def server_live(live: bool = True) -> dict[str, Any]:
    """Return whether the server is alive."""
    return {"live": live}


def server_ready(ready: bool) -> dict[str, Any]:
    """Return whether all models can answer. The protocol calls that `live`, most clients look for `ready`."""
    return {"live": True, "ready": ready}


def model_ready(deployment: str, ready: bool) -> dict[str, Any]:
    """Return whether a model can answer."""
    return {"name": deployment, "ready": ready}


def refused(error: LoopwrightError) -> dict[str, Any]:
    """Return an error as this protocol has it: `error` is text; what programs need stands beside it."""
    return {"error": str(error), "code": error.code} | {
        name: value for name, value in error.attrs.items() if name not in {"error", "code"}
    }
