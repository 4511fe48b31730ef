"""What can be read about the deployments: lists, states, metadata, the OpenAPI document and the pages to try them."""

from __future__ import annotations

import importlib.metadata
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.deploy.base import Predictor, Route
from loopwright.deploy.online.codecs.base import Reply
from loopwright.errors import LoopwrightError, NotFound, Unavailable, listing

__all__ = ["ALIVE", "Documents"]

#: Whether the process is alive and its models are loaded: answered at once, whatever the threads are busy with.
ALIVE = frozenset({"/health", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"})

_encode = msgspec.json.Encoder().encode
_ROUTES = {
    "POST /predict/<deployment>": "one record {...} or a list of records; also CSV, Arrow and Parquet",
    "POST /labels": 'one {"prediction_id": ..., "actual": ...}, or with deployment, entity and at, or a list of them',
    "GET /deployments": "what is served, and what it takes",
    "GET /try/<deployment>": "a page to try a deployment",
    "GET /openapi.json": "this interface, described by OpenAPI",
    "GET /ready": "whether everything that was started is loaded",
    "GET /health": "whether the process is alive",
    "GET /metrics": "counters and latencies for Prometheus",
    "POST /invocations": "MLflow's scoring protocol; also /deployments/<deployment>/invocations, /ping and /version",
    "POST /v2/models/<deployment>/infer": "the Open Inference Protocol; also its metadata and health",
}
_Answered = tuple[int, Reply]


class Documents:
    """Answers what is asked with GET, but for the numbers.

    Parameters
    ----------
    project
        Whose deployments these are.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        # By weak reference: what is no longer served is to be given back.
        self._described: dict[str, tuple[Callable[[], Route | None], Any]] = {}

    def follow(self, project: Project) -> None:
        """Take over the configuration."""
        self._project = project
        self._described = {}

    def answer(
        self, path: str, headers: Mapping[bytes, bytes], predictors: Mapping[str, Predictor]
    ) -> _Answered:
        """Answer one request; reads files, so not for the event loop, but for those of `ALIVE`.

        Raises
        ------
        NotFound
            There is nothing at the path.
        Unavailable
            Something is not loaded.
        """
        if path in ALIVE:
            return self._alive(path, predictors)
        if path.startswith("/v2"):
            return self._v2(path, predictors)
        if path == "/":
            return self._index(headers, predictors)
        if path == "/deployments":
            return 200, _json([self._facts(name, one) for name, one in sorted(predictors.items())])
        if path.startswith("/deployments/"):
            name = path.removeprefix("/deployments/")
            return 200, _json(self._facts(name, _known(name, predictors)))
        if path == "/version":
            from loopwright.deploy.online.codecs import invocations

            return 200, Reply(invocations.version().encode(), b"text/plain; charset=utf-8")
        if path == "/openapi.json":
            from loopwright.deploy.online import openapi

            made = openapi.document(self._project.name, self._all(predictors), version=_version())
            return 200, _json(made)
        if path.startswith("/try/"):
            from loopwright.deploy.online import tryit

            name = path.removeprefix("/try/")
            predictor = _known(name, predictors)
            one = self._describe(name, predictor)
            if one is None:
                raise predictor.absent()
            return 200, tryit.page(self._project.name, name, one)
        raise NotFound(f"There is nothing at {path[:200]!r}.", valid=f"Here are: {listing(_ROUTES)}.")

    def _alive(self, path: str, predictors: Mapping[str, Predictor]) -> _Answered:
        if path == "/health":
            return 200, _json({"status": "ok"})
        if path == "/v2/health/live":
            return 200, _json({"live": True})
        missing = [name for name, one in predictors.items() if one.started and not one.ready]
        if path == "/v2/health/ready":
            return (503 if missing else 200), _json({"ready": not missing})
        if missing:
            reasons = {name: predictors[name].absent().fact for name in missing}
            raise Unavailable(
                f"Not loaded yet: {listing(missing)}.",
                hint="loopwright status",
                missing=reasons,
                retry_after=1,
            )
        if path == "/ping":
            return 200, Reply(b"\n")
        return 200, _json({"status": "ready"})

    def _index(self, headers: Mapping[bytes, bytes], predictors: Mapping[str, Predictor]) -> _Answered:
        from loopwright.deploy.online import tryit

        if tryit.wants_page(headers.get(b"accept", b"")):
            found = {name: self._describe(name, one) for name, one in sorted(predictors.items())}
            return 200, tryit.index(self._project.name, found)
        facts = {"project": self._project.name, "routes": _ROUTES, "deployments": sorted(predictors)}
        return 200, _json(facts)

    def _v2(self, path: str, predictors: Mapping[str, Predictor]) -> _Answered:
        from loopwright.deploy.online.codecs import v2

        if path in {"/v2", "/v2/"}:
            return 200, _json(v2.server_metadata(f"loopwright: {self._project.name}", _version()))
        parts = path.removeprefix("/v2/").split("/")
        if parts[0] != "models" or len(parts) < 2:
            raise NotFound(
                f"There is nothing at {path[:200]!r}.",
                valid="Here are: /v2, /v2/health/live, /v2/health/ready, /v2/models/<deployment>.",
            )
        name, rest = parts[1], parts[2:]
        predictor = _known(name, predictors)
        route = predictor.route
        versions = _versions(route)
        if rest[:1] == ["versions"] and len(rest) > 1:
            if route is not None and rest[1] not in map(str, versions):
                raise NotFound.among(f"version of {name!r}", rest[1][:64], versions)
            versions = [version for version in versions if str(version) == rest[1]] or versions
            rest = rest[2:]
        if rest == ["ready"]:
            return (200 if predictor.ready else 503), _json(v2.model_ready(name, predictor.ready))
        if rest:
            raise NotFound(f"There is nothing at {path[:200]!r}.", valid="Here are: ready, infer.")
        if route is None:
            raise predictor.absent()
        return 200, _json(v2.metadata(name, route.signature, versions))

    def _describe(self, name: str, predictor: Predictor) -> Any:
        """Return a deployment as callers see it, None while it serves nothing; read again when it serves another."""
        from loopwright.deploy.online.described import described

        route = predictor.route
        if route is None:
            return None
        known = self._described.get(name)
        if known is None or known[0]() is not route:
            champion = predictor.scorer
            log = predictor.config.log
            made = described(route, champion.folder, predictor.config.entity, hidden=(*log.drop, *log.hash))
            known = self._described[name] = weakref.ref(route), made
        return known[1]

    def _all(self, predictors: Mapping[str, Predictor]) -> dict[str, Any]:
        found = {name: self._describe(name, one) for name, one in sorted(predictors.items())}
        return {name: one for name, one in found.items() if one is not None}

    def _facts(self, name: str, predictor: Predictor) -> dict[str, Any]:
        from loopwright.deploy.online.levels import service_level

        config = predictor.config
        facts: dict[str, Any] = {"name": name, "model": config.model, "entity": config.entity}
        try:
            level = service_level(self._project, name)
        except LoopwrightError:
            level = None
        if level is not None:
            facts["service_level"] = level
        route = predictor.route
        if route is None:
            state = "asleep" if predictor.asleep else "loading" if predictor.started else "not started"
            refused = {str(version): reason for version, reason in predictor.refused.items()}
            return facts | {"state": state, "variants": [], "refused": refused}
        variants = [
            {
                "name": variant.name,
                "version": variant.version,
                "weight": variant.weight,
                "shadow": variant.shadow,
                "runtime": scorer.runtime,
                "reason": scorer.manifest.reason,
            }
            for variant, scorer in zip(route.variants, route.scorers, strict=True)
        ]
        refused = {str(version): reason for version, reason in predictor.refused.items()}
        return facts | {
            "model": route.deployment.model,
            "state": "serving",
            "variants": variants,
            "runtime": predictor.scorer.runtime,
            "signature": route.signature,
            "refused": refused,
        }


def _known(name: str, predictors: Mapping[str, Predictor]) -> Predictor:
    if name not in predictors:
        raise NotFound.among(
            "online deployment", name[:200], sorted(predictors), hint="loopwright deployment list"
        )
    return predictors[name]


def _versions(route: Route | None) -> list[int]:
    if route is None:
        return []
    return sorted({variant.version for variant in route.variants if not variant.shadow})


def _json(value: Any) -> Reply:
    return Reply(_encode(value))


def _version() -> str:
    return importlib.metadata.version("loopwright")
