"""Both clients of Loopwright against a real worker."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
from four_modes import FILTERS
from served_project import churn, served_project, worker

import loopwright as lw
from loopwright import scoring
from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound, SchemaMismatch
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.registry import arrays_of

pytestmark = [pytest.mark.integration, *(pytest.mark.filterwarnings(text) for text in FILTERS)]
TABLE = churn().drop(columns="outcome")
ARROW = pa.Table.from_pandas(TABLE, preserve_index=False)
NAME = "churn-api"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Project]]:
    """Return the address of a worker with one deployment of mixed columns, and the project."""
    project = served_project(tmp_path_factory.mktemp("clients"), NAME)
    with worker(project) as port:
        yield f"http://127.0.0.1:{port}", project


def expected(project: Project) -> list[Any]:
    """Return the labels that the model gives in this process."""
    scorer = scoring.load(project.scorer("churn", 1))
    return list(scorer.score(arrays_of(ARROW, scorer.signature.inputs)).prediction.tolist())


@pytest.mark.parametrize("table", [TABLE, ARROW, pl.from_arrow(ARROW)], ids=["pandas", "arrow", "polars"])
@pytest.mark.parametrize("rows", [3, 400], ids=["json", "arrow stream"])
def test_tables_are_answered_row_by_row(served: tuple[str, Project], table: Any, rows: int) -> None:
    """Small and large tables of each kind get the model's answers in their order, from both clients."""
    url, project = served
    part = table.slice(0, rows) if not hasattr(table, "iloc") else table.head(rows)

    async def ask() -> Any:
        async with lw.AsyncClient(url) as client:
            return await client.predict(NAME, part, entity="Müller")

    with lw.Client(url) as client:
        found = client.predict(NAME, part)
    assert [one["prediction"] for one in found] == expected(project)[:rows]
    again = asyncio.run(ask())
    assert [one["prediction"] for one in again] == expected(project)[:rows]
    store = PredictionStore(project)
    assert store.find(again[rows - 1]["prediction_id"]).entity == "Müller"


def test_many_requests_at_once_each_get_their_own_answer(served: tuple[str, Project]) -> None:
    """Four hundred single rows at once over one client: each answer is that of its row."""
    url, project = served
    rows = ARROW.to_pylist()

    async def ask() -> list[Any]:
        async with lw.AsyncClient(url) as client:
            return await asyncio.gather(
                *(client.predict(NAME, row, request_id=f"r-{at}") for at, row in enumerate(rows))
            )

    answers = asyncio.run(ask())
    assert [one["prediction"] for one in answers] == expected(project)
    ids = ", ".join(f"'{one['prediction_id']}'" for one in answers[:2])
    query = f"select request_id from predictions where prediction_id in ({ids}) order by 1"
    assert PredictionStore(project).query(query)["request_id"].to_pylist() == ["r-0", "r-1"]


def test_labels_states_and_errors(served: tuple[str, Project]) -> None:
    """Labels arrive, deployments are listed, and errors are the classes that the server raised."""
    url, project = served
    row = ARROW.to_pylist()[0]
    with lw.Client(url) as client:
        assert client.ready()
        (listed,) = client.deployments()
        assert (listed["name"], listed["state"], listed["variants"][0]["version"]) == (NAME, "serving", 1)
        answer = client.predict(NAME, row, variant="champion", timeout_ms=20_000)
        client.label(answer["prediction_id"], "stays")
        with pytest.raises(NotFound):
            client.predict(NAME, row, variant="nobody")
        with pytest.raises(NotFound, match="Did you mean 'churn-api'"):
            client.predict("churn-ap", row)
        with pytest.raises(SchemaMismatch) as caught:
            client.predict(NAME, TABLE.assign(age="old"))
        assert caught.value.attrs["field"] == "age"
        with pytest.raises(SchemaMismatch, match="agee"):
            client.predict(NAME, row | {"agee": 1})
        with pytest.raises(InvalidInput):
            client.predict(NAME, [])
    assert PredictionStore(project).find(answer["prediction_id"]).actual == "stays"


def test_a_key_is_sent_where_one_is_needed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is a key, clients without it are refused, and a browser is asked for it before it is shown any row."""
    from loopwright.deploy.online import keys

    project = served_project(tmp_path_factory.mktemp("keys"), NAME)
    ledger = Ledger.open(project)
    key = keys.create(ledger, "shop")
    ledger.close()
    row = ARROW.to_pylist()[0]
    with worker(project) as port:
        url = f"http://127.0.0.1:{port}"
        with lw.Client(url) as client:
            with pytest.raises(Denied, match="No API key"):
                client.predict(NAME, row)
            assert client.ready()
        with lw.Client(url, api_key="lw_wrong") as client, pytest.raises(Denied, match="not valid"):
            client.predict(NAME, row)
        with lw.Client(url, api_key=key) as client:
            assert client.predict(NAME, row)["model"] == "churn"
        browser = {"accept": "text/html,*/*;q=0.8"}
        for path in ("/", f"/try/{NAME}"):
            door = httpx.get(url + path, headers=browser)
            assert (door.status_code, door.headers["www-authenticate"]) == (401, "Bearer")
            assert 'id="door"' in door.text
            assert "Aachen" not in door.text
            page = httpx.get(url + path, headers=browser | {"x-api-key": key})
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "content-security-policy" in page.headers
            assert httpx.get(url + path).json()["error"]["code"] == "unauthorized"
        assert "Aachen" in page.text
        monkeypatch.setenv("LOOPWRIGHT_API_KEY", key)
        with lw.Client(url) as client:
            assert client.predict(NAME, row)["model"] == "churn"
