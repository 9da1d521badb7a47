"""What is read can be kept: ETags that change with what is stored, 304 without reading it, an ETag a coding."""

import gzip
import json
from typing import Any

import httpx
import pytest
import zstandard
from sqlalchemy import update

from gradprobe.settings import Settings
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks
from tests.integration.service import measured
from tests.integration.service.serving import serving

PARTS = ["gradients", "gradients?of=outputs&max_points=3", "weights", "activations", "metrics", "gradients/histograms"]
CODINGS = ["identity", "gzip", "zstd"]


def raw(client: httpx.Client, path: str, coding: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it travelled."""
    with client.stream("GET", path, headers={"Accept-Encoding": coding, **headers}) as response:
        return response, b"".join(response.iter_raw())


def decoded(body: bytes, response: httpx.Response) -> Any:
    coding = response.headers.get("content-encoding")
    if coding == "gzip":
        body = gzip.decompress(body)
    elif coding == "zstd":
        body = zstandard.ZstdDecompressor().decompress(body)
    return json.loads(body)


@pytest.mark.parametrize("part", PARTS)
def test_a_series_is_unchanged_until_more_is_stored(
    client: httpx.Client, database: Database, experiment_id: str, part: str
) -> None:
    path = f"/experiments/{experiment_id}/{part}"
    seen = set()

    def look() -> None:
        response = client.get(path)
        assert response.headers["cache-control"] == "private, no-cache"
        seen.add(response.headers["etag"])
        unchanged = client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == response.headers["etag"]
        assert unchanged.headers["vary"] == "Accept-Encoding"

    look()
    record, lease = measured.claim(database, experiment_id)
    look()
    for start in (0, 5, 10):
        with database.write() as connection:
            leases.renew(connection, lease, iteration=start + 5)
        measured.write_statistics(database, record, "weights", range(start, start + 5))
        look()
    measured.finish(database, lease)
    look()
    assert len(seen) == 6


def test_304_reads_no_block(client: httpx.Client, database: Database, experiment_id: str) -> None:
    path = f"/experiments/{experiment_id}/weights"
    record, _ = measured.claim(database, experiment_id)
    measured.write_statistics(database, record, "weights", range(5))
    etag = client.get(path).headers["etag"]
    with database.write() as connection:
        connection.execute(update(blocks).values(statistics=b"damaged"))

    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(path).status_code == 500
    # What is not there is told to those who have it, too.
    refused = client.get(f"{path}?layers=layer9", headers={"If-None-Match": etag})
    assert refused.status_code == 422


def test_an_ended_run_is_read_once_and_told_from_memory(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    path = f"/experiments/{experiment_id}/weights"
    record, lease = measured.claim(database, experiment_id)
    block = measured.write_statistics(database, record, "weights", range(20))
    measured.finish(database, lease)
    first = client.get(path)
    with database.write() as connection:  # no release does this: it shows where the answers come from
        connection.execute(update(blocks).values(statistics=b"damaged"))

    assert client.get(path).content == first.content
    assert client.get(f"{path}?layers=layer2&start=4").json()["layers"][0]["name"] == "layer2"
    again = client.get(path, headers={"X-Request-ID": "another"})
    assert again.headers["x-request-id"] == "another"
    assert len(first.json()["steps"]) == len(block.steps)


def test_another_attempt_is_told_and_not_the_one_before(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    path = f"/experiments/{experiment_id}/weights?statistics=norm&layers=layer1"
    told = []
    for seed in (1, 2):
        record, lease = measured.claim(database, experiment_id)
        block = measured.write_statistics(database, record, "weights", range(3), seed)
        with database.write() as connection:
            experiments.request_cancel(connection, experiment_id)
            leases.give_back(connection, lease)
        told.append(client.get(path).json()["layers"][0]["statistics"]["norm"])
        assert told[-1] == pytest.approx(block.values[3, 0].tolist(), rel=1e-6)
        client.post(f"/experiments/{experiment_id}/retry")
    assert told[0] != told[1]


def test_the_cache_is_optional(service_settings: Settings, database: Database) -> None:
    with serving(service_settings.model_copy(update={"cache_mebibytes": 0})) as client:
        created = client.post("/experiments", json={"network": {"depth": 2}}).json()["id"]
        record, lease = measured.claim(database, created)
        measured.write_statistics(database, record, "weights", range(9))
        measured.finish(database, lease)
        path = f"/experiments/{created}/weights"
        assert client.get(path).content == client.get(path).content


@pytest.mark.parametrize("ended", [False, True])
def test_each_coding_has_an_etag_of_its_own(
    client: httpx.Client, database: Database, experiment_id: str, ended: bool
) -> None:
    path = f"/experiments/{experiment_id}/weights"
    record, lease = measured.claim(database, experiment_id)
    measured.write_statistics(database, record, "weights", range(200))
    if ended:
        measured.finish(database, lease)

    found = {coding: raw(client, path, coding) for coding in CODINGS}

    etags = {coding: response.headers["etag"] for coding, (response, _) in found.items()}
    assert len(set(etags.values())) == 3
    for coding, (response, body) in found.items():
        assert response.headers.get("content-encoding", "identity") == coding
        assert int(response.headers["content-length"]) == len(body)
        assert response.headers["vary"] == "Accept-Encoding"
        assert decoded(body, response) == decoded(found["identity"][1], found["identity"][0])
        assert raw(client, path, coding)[1] == body
        for other in CODINGS:
            status = raw(client, path, coding, **{"If-None-Match": etags[other]})[0].status_code
            assert status == (304 if other == coding else 200)
    assert len(found["zstd"][1]) < len(found["identity"][1]) / 2


@pytest.mark.parametrize("path", ["/experiments?limit=20", "/openapi.json"])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_whatever_is_large_is_encoded(client: httpx.Client, path: str, coding: str) -> None:
    for number in range(3):
        client.post("/experiments", json={"name": f"run {number}"})
    plain, body = raw(client, path, "identity")
    response, packed = raw(client, path, coding)
    assert "content-encoding" not in plain.headers
    assert response.headers["content-encoding"] == coding
    assert len(packed) < len(body) / 2
    assert decoded(packed, response) == json.loads(body)


@pytest.mark.parametrize("path", ["/livez", "/experiments", "/experiments/exp_0"])
def test_what_is_small_is_not(client: httpx.Client, path: str) -> None:
    response, body = raw(client, path, "zstd")
    assert "content-encoding" not in response.headers
    assert response.headers["vary"] == "Accept-Encoding"
    json.loads(body)


def test_a_list_is_unchanged_until_what_it_tells_changes(client: httpx.Client, experiment_id: str) -> None:
    first = client.get("/experiments")
    known = {"If-None-Match": first.headers["etag"]}
    assert client.get("/experiments", headers=known).status_code == 304
    assert client.get("/experiments?limit=7", headers=known).status_code == 304  # the same document
    client.patch(f"/experiments/{experiment_id}", json={"notes": "x"})
    assert client.get("/experiments", headers=known).status_code == 200
