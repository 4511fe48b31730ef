"""The plain form: one JSON record, or a list of records; answers as JSON objects of the same number.

The way there is one typed decode, which checks everything there is to check, and the way back is one template for each
variant: a row's answer is nine pieces of text put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loopwright.deploy.answers import Answers
from loopwright.deploy.online.codecs.base import Asked, Reply
from loopwright.deploy.online.decode import Decoder
from loopwright.records import Scalar, Signature, Variant

__all__ = ["Records", "answer_texts"]

_encode = msgspec.json.Encoder().encode


class Records:
    """JSON records for one signature.

    Parameters
    ----------
    signature
        What a record must look like. Fields it does not know are refused.
    entity
        The field that names a record's entity; it may be one of the inputs or come in addition to them.
    """

    def __init__(self, signature: Signature, entity: str | None = None) -> None:
        self.decoder = Decoder(signature, entity)

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return the records of a body; raises as `Decoder.decode` does."""
        rows, single = self.decoder.decode(body)
        return Asked(len(rows), rows=rows, single=single, entities=self.decoder.entities(rows))

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return one object for a single record, else ``{"predictions": [...]}``."""
        texts = answers.written
        if texts is None:
            texts = answers.written = answer_texts(answers)
        if asked.single:
            return Reply(texts[at].encode())
        own = texts if asked.n == len(texts) else texts[at : at + asked.n]
        return Reply(f'{{"predictions":[{",".join(own)}]}}'.encode())


def answer_texts(answers: Answers) -> list[str]:
    """Return the answer to each row as a JSON object.

    It has ``prediction_id``, ``prediction`` (an object by name where there are several outputs), ``probability`` by class where the row's variant gives one, ``model``,
    ``version`` and ``variant``. A number that is not finite is null: JSON has no other word for it.
    """
    predictions = _predictions(answers)
    shares = answers.probability
    if shares is None:
        rows = zip(answers.prediction_id, predictions, strict=True)
    else:
        flat = _numbers(shares.ravel())
        width = shares.shape[1]
        if "null" in flat:
            return _with_gaps(
                answers, predictions, [flat[at : at + width] for at in range(0, len(flat), width)]
            )
        rows = zip(answers.prediction_id, predictions, *(flat[at::width] for at in range(width)), strict=True)
    if answers.places is None:
        template = _template(answers, answers.variants[0], shares=shares is not None)
        return [template % row for row in rows]
    templates = [_template(answers, variant, shares=shares is not None) for variant in answers.variants]
    return [templates[place] % row for place, row in zip(answers.places, rows, strict=True)]


def _with_gaps(answers: Answers, predictions: list[str], shares: list[list[str]]) -> list[str]:
    """Write rows of which some have no probability, because their variant gives none."""
    made = []
    for row, one in enumerate(answers.prediction_id):
        variant = answers.variants[answers.places[row] if answers.places is not None else 0]
        known = shares[row][0] != "null"
        template = _template(answers, variant, shares=known)
        made.append(template % (one, predictions[row], *(shares[row] if known else ())))
    return made


def _template(answers: Answers, variant: Variant, *, shares: bool) -> str:
    """Return an answer of one variant with ``%s`` for what differs from row to row."""
    names = ",".join(f"{_text(_name(label))}:%s" for label in answers.classes)
    probability = f'"probability":{{{names}}},' if shares else ""
    return (
        f'{{"prediction_id":"%s","prediction":%s,{probability}"model":{_text(answers.model)},'
        f'"version":{variant.version},"variant":{_text(variant.name)}}}'
    )


def _name(label: Scalar) -> str:
    """Return a class label as the name it has in an answer."""
    return str(label)


def _text(value: str) -> str:
    return _encode(value).decode().replace("%", "%%")


def _predictions(answers: Answers) -> list[str]:
    values = answers.prediction
    if answers.outputs:
        return [_encode(dict(zip(answers.outputs, row, strict=True))).decode() for row in values.tolist()]
    if values.dtype.kind in "fiu":
        return _numbers(values)
    return [_encode(value).decode() for value in values.tolist()]


def _numbers(values: Any) -> list[str]:
    """Return numbers as JSON, written in one go."""
    return _encode(values.tolist())[1:-1].decode().split(",") if len(values) else []
