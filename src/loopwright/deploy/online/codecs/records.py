"""The plain form: one JSON record, or a list of records; answers as JSON objects of the same number.

The way there is one typed decode, which checks everything there is to check, and the way back is one template for each
variant: a row's answer is nine pieces of text put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        self._templates = _Templates()

    def decode(self, body: bytes | bytearray, headers: Mapping[bytes, bytes]) -> Asked:
        """Return the records of a body; raises as `Decoder.decode` does."""
        rows, single = self.decoder.decode(body)
        return Asked(len(rows), rows=rows, single=single, entities=self.decoder.entities(rows))

    def encode(self, answers: Answers, at: int, asked: Asked) -> Reply:
        """Return one object for a single record, else ``{"predictions": [...]}``."""
        texts = answers.written
        if texts is None:
            templates = self._templates
            if not templates.fit(answers):
                # Made anew with each change of what is served; several threads may do so at once.
                templates = self._templates = _Templates.of(answers)
            texts = answers.written = answer_texts(answers, templates)
        if asked.single:
            return Reply(texts[at].encode())
        own = texts if asked.n == len(texts) else texts[at : at + asked.n]
        return Reply(f'{{"predictions":[{",".join(own)}]}}'.encode())


@dataclass(frozen=True, slots=True)
class _Templates:
    """An answer of each variant with ``%s`` for what differs from row to row: with probabilities, and without."""

    variants: tuple[Variant, ...] = ()
    classes: tuple[Scalar, ...] = ()
    model: str = ""
    with_shares: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, answers: Answers) -> _Templates:
        """Return those for the variants of some answers."""
        return cls(
            answers.variants,
            answers.classes,
            answers.model,
            tuple(_template(answers, variant, shares=True) for variant in answers.variants),
            tuple(_template(answers, variant, shares=False) for variant in answers.variants),
        )

    def fit(self, answers: Answers) -> bool:
        """Whether they are for these answers."""
        # The same objects, as long as the same is served: comparing them would cost more than writing a row.
        return answers.variants is self.variants and answers.classes is self.classes


def answer_texts(answers: Answers, templates: _Templates | None = None) -> list[str]:
    """Return the answer to each row as a JSON object.

    It has ``prediction_id``, ``prediction`` (a list where there are several outputs), ``probability`` by class
    where the row's variant gives one, ``model``, ``version`` and ``variant``. A number that is not finite is null: JSON
    has no other word for it.
    """
    templates = templates or _Templates.of(answers)
    predictions = _predictions(answers)
    shares = answers.probability
    if shares is None:
        rows = zip(answers.prediction_id, predictions, strict=True)
        forms = templates.without
    else:
        flat = _numbers(shares.ravel())
        width = shares.shape[1]
        if "null" in flat:
            gaps = [flat[at : at + width] for at in range(0, len(flat), width)]
            return _with_gaps(answers, predictions, gaps, templates)
        rows = zip(answers.prediction_id, predictions, *(flat[at::width] for at in range(width)), strict=True)
        forms = templates.with_shares
    if answers.places is None:
        form = forms[0]
        return [form % row for row in rows]
    return [forms[place] % row for place, row in zip(answers.places, rows, strict=True)]


def _with_gaps(
    answers: Answers, predictions: list[str], shares: list[list[str]], templates: _Templates
) -> list[str]:
    """Write rows of which some have no probability, because their variant gives none."""
    made = []
    for row, one in enumerate(answers.prediction_id):
        place = answers.places[row] if answers.places is not None else 0
        if shares[row][0] != "null":
            made.append(templates.with_shares[place] % (one, predictions[row], *shares[row]))
        else:
            made.append(templates.without[place] % (one, predictions[row]))
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
    if values.ndim == 2:
        return [_encode(row).decode() for row in values.tolist()]
    if values.dtype.kind in "fiu":
        return _numbers(values)
    return [_encode(value).decode() for value in values.tolist()]


def _numbers(values: Any) -> list[str]:
    """Return numbers as JSON, written in one go."""
    return _encode(values.tolist())[1:-1].decode().split(",") if len(values) else []
