"""MLflow's webhooks between the project's own server and itself: the subscription, its secret, and the proof of a call.

Nothing is taken from a call but the name of a model, which is then looked at in the registry: a repeated, delayed or
lost call does no harm.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput

__all__ = ["CALLED", "PATH", "Call", "environment", "proven", "subscribe"]

#: Where the local server takes the calls.
PATH = "/webhooks/mlflow"
NAME = "loopwright"
#: The event of a call.
CALLED = "registry.called"
#: A call whose time is further off than this many seconds is refused, as one that somebody has kept and repeats.
TOLERANCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Call:
    """What MLflow says: that something happened to a model, such as ``model_version_alias.created``."""

    model: str
    what: str


def environment(project: Project) -> dict[str, str]:
    """Return what MLflow reads when it is imported: its own defaults allow no call to this machine.

    The key encrypts the secrets of all webhooks in MLflow's database. Made anew at each start, as MLflow would, the
    ones stored before could not be read any more.
    """
    return {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": os.environ.get("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
        or _secrets(project)["encryption_key"],
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }


def _secrets(project: Project) -> dict[str, str]:
    """Return the secrets of the project's server, made on first use; only this user may read the file."""
    path = project.state / "webhooks.json"
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            json.dump({"secret": secrets.token_urlsafe(32), "encryption_key": key}, file)
    found: dict[str, str] = json.loads(path.read_text())
    return found


def subscribe(project: Project, address: str) -> None:
    """Have MLflow in this process call `address` whenever a model, a version or an alias is made or removed."""
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.server.handlers import _get_model_registry_store

    store = _get_model_registry_store()
    # An earlier start may have had another port.
    for known in store.list_webhooks(max_results=1000):
        if known.name == NAME:
            store.delete_webhook(known.webhook_id)
    entity, action = WebhookEntity, WebhookAction
    store.create_webhook(
        name=NAME,
        url=address,
        description="Wakes the deployments of this project.",
        secret=_secrets(project)["secret"],
        events=[
            WebhookEvent(entity.REGISTERED_MODEL, action.CREATED),
            WebhookEvent(entity.MODEL_VERSION, action.CREATED),
            WebhookEvent(entity.MODEL_VERSION_ALIAS, action.CREATED),
            WebhookEvent(entity.MODEL_VERSION_ALIAS, action.DELETED),
        ],
    )


def proven(project: Project, headers: Mapping[str, str], body: bytes, now_s: float) -> Call:
    """Return what a call is about, when MLflow has made it.

    Parameters
    ----------
    headers
        With names in lower case.
    now_s
        The present time, in seconds since 1970.

    Raises
    ------
    Denied
        The call is not signed with the project's secret, or is not of these minutes.
    InvalidInput
        It is signed and makes no sense.
    """
    when = headers.get("x-mlflow-timestamp", "")
    delivery = headers.get("x-mlflow-delivery-id", "")
    if not when.isdecimal() or abs(now_s - int(when)) > TOLERANCE_S:
        raise Denied("The call has no time, or one that is too far from now.")
    signed = f"{delivery}.{when}.".encode() + body
    digest = hmac.new(_secrets(project)["secret"].encode(), signed, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
        raise Denied("The call is not signed with the project's secret.")
    try:
        said = json.loads(body)
        return Call(str(said["data"]["name"]), f"{said['entity']}.{said['action']}")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("The call names no model.") from error
