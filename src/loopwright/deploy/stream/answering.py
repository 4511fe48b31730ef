"""Decoded messages to results: who gets which version, under which id, and what goes into the prediction log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from loopwright.deploy.base import Answers, Predictor, Route
from loopwright.deploy.stream.base import Message
from loopwright.deploy.stream.rows import Decoder, Row
from loopwright.errors import SchemaMismatch
from loopwright.predictions import Ids, PredictionStore

__all__ = ["Answering", "Decoded", "Outputs"]

#: Results for a channel: (prediction id, JSON).
Outputs = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Messages that fit the model, with their rows."""

    messages: list[Message]
    rows: list[Row]

    def only(self, number: int) -> Decoded:
        """Return one of them alone."""
        return Decoded([self.messages[number]], [self.rows[number]])


class Answering:
    """Answers messages with what a deployment serves at one moment.

    Parameters
    ----------
    predictor, route
        The deployment and what it serves; every batch is answered with one route.
    ids
        Of the project.
    entity
        The field that says who a row is about, if any is declared; else the message's key does.
    """

    def __init__(self, predictor: Predictor, route: Route, ids: Ids, entity: str | None) -> None:
        self.route = route
        self.decoder = Decoder(route.signature, entity)
        self._predictor = predictor
        self._ids = ids

    def decode(self, messages: Sequence[Message]) -> tuple[Decoded, list[tuple[Message, str]]]:
        """Return the messages that fit the model, and the others with the reason they do not."""
        good, bad = Decoded([], []), []
        for message in messages:
            try:
                good.rows.append(self.decoder.decode(message.value))
                good.messages.append(message)
            except SchemaMismatch as error:
                bad.append((message, str(error)))
        return good, bad

    def predict(self, these: Decoded, logged: set[str]) -> Outputs:
        """Score and log messages, one or more, except that those whose ids are in `logged` are not logged again."""
        entities = self._entities(these)
        ids = self._derive(these, entities)
        fresh = [number for number, one in enumerate(ids) if one not in logged]
        columns = self.decoder.columns(these.rows)
        every = len(fresh) == len(ids)
        answers = self._predictor.predict(columns, entities=entities, ids=ids, route=self.route, log=every)
        if fresh and not every:
            # Once after a crash: some rows are in the log already, and only the others are added to it.
            self._predictor.predict(
                {name: values[fresh] for name, values in columns.items()},
                entities=[entities[number] for number in fresh],
                ids=[ids[number] for number in fresh],
                route=self.route,
            )
        return _outputs(these.messages, answers)

    def logged(self, these: Decoded) -> set[str]:
        """Return the ids of those messages that are in the prediction log; costs a query over the deployment's log."""
        if not these.messages:
            return set()
        wanted = ", ".join(f"'{one}'" for one in self._derive(these, self._entities(these)))
        query = f"select prediction_id from predictions where prediction_id in ({wanted})"
        found = PredictionStore(self._predictor.project).query(query, deployment=self._predictor.name)
        return set(found["prediction_id"].to_pylist())

    def _entities(self, these: Decoded) -> list[str]:
        return [
            self.decoder.entity(row) or message.key or message.id
            for message, row in zip(these.messages, these.rows, strict=True)
        ]

    def _derive(self, these: Decoded, entities: Sequence[str]) -> list[str]:
        """Return the prediction ids: the same after a crash.

        The message's id is part of them beside its key, because a sender may use a key twice.
        """
        name, split = self._predictor.name, self.route.split
        versions = [str(split.variants[split.place(entity)].version) for entity in entities]
        return [
            self._ids.derive(name, version, message.key, message.id)
            for message, version in zip(these.messages, versions, strict=True)
        ]


def _outputs(messages: Sequence[Message], answers: Answers) -> Outputs:
    predictions, versions = answers.prediction.tolist(), answers.version.tolist()
    probabilities: list[dict[str, float] | None] = [None] * len(messages)
    if answers.probability is not None:
        names = [str(label) for label in answers.classes]
        probabilities = [dict(zip(names, row, strict=True)) for row in answers.probability.tolist()]
    return [
        (
            one,
            msgspec.json.encode(
                {
                    "prediction_id": one,
                    "key": message.key,
                    "prediction": predictions[number],
                    "probability": probabilities[number],
                    "model": answers.model,
                    "version": versions[number],
                    "variant": answers.variant[number],
                }
            ),
        )
        for number, (one, message) in enumerate(zip(answers.prediction_id, messages, strict=True))
    ]
