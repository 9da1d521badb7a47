"""The dashboard's files: how they are served, what they may do, and that they are all in the package."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import zstandard

from gradprobe.settings import Settings
from gradprobe.store.database import Database
from service.static import assets
from tests.integration.service.keyed import bearer
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "service" / "dashboard"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
LONGEST_FILE = 400


@pytest.fixture
def client(tmp_path: Path, sqlite_template: Path) -> Iterator[httpx.Client]:
    """Of a server that asks for keys."""
    settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0", authentication="required")
    shutil.copy(sqlite_template, str(settings.database.database))
    database = Database(settings.database)
    bearer(database, "ada")
    database.close()
    with serving(settings) as opened:
        yield opened


def test_a_browser_gets_the_page_and_everybody_else_the_directory(client: httpx.Client) -> None:
    page = client.get("/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Gradprobe</title>" in page.text
    assert "Accept" in page.headers["vary"]
    assert client.get("/").json()["links"]["experiments"] == "/experiments"


def test_every_file_is_served_without_a_key(client: httpx.Client) -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names | {"plotly.min.js", "swagger-ui-bundle.js", "swagger-ui.css"} == set(assets())
    for name in names - {"index.html", "docs.html"}:
        answer = client.get(f"/dashboard/{name}")
        assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())
    for page in ("index.html", "docs.html"):
        for reference in re.findall(r'(?:src|href)="(/dashboard/[^"]+)"', (FOLDER / page).read_text()):
            assert client.get(reference).status_code == 200
    assert client.get("/experiments").status_code == 401


@pytest.mark.parametrize("path", ["nothing.js", "docs.html", "..%2Fapp.py", "%2e%2e/app.py", "static.py", ""])
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/dashboard/{path}")
    assert answer.status_code in (401, 404)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path, sqlite_template: Path) -> None:
    settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as opened:
        assert_problem(opened.get("/dashboard/nothing.js"), 404, "NOT_FOUND")


def test_a_file_travels_once(client: httpx.Client) -> None:
    first = client.get("/dashboard/main.js", headers={"Accept-Encoding": "gzip"})
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(
        "/dashboard/main.js", headers={"Accept-Encoding": "gzip", "If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    plain = client.get("/dashboard/main.js", headers={"Accept-Encoding": "identity"})
    assert plain.headers["etag"] != first.headers["etag"]  # a strong one is of the bytes that travel


def test_the_chart_library_is_the_installed_package_s_and_travels_small(client: httpx.Client) -> None:
    with client.stream("GET", "/dashboard/plotly.min.js", headers={"Accept-Encoding": "zstd"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "zstd"
    assert len(raw) < 1_500_000
    assert zstandard.ZstdDecompressor().decompress(raw) == assets()["plotly.min.js"].content


@pytest.mark.parametrize(("path", "file"), [("/", "index.html"), ("/docs", "docs.html")])
def test_a_page_runs_nothing_but_the_server_s_own_files(client: httpx.Client, path: str, file: str) -> None:
    policy = dict(
        part.split(" ", 1) for part in client.get(path, headers=HTML).headers["content-security-policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "style-src-attr": "'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    html = (FOLDER / file).read_text()
    assert client.get(path, headers=HTML).text == html
    assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", html) == []


def test_no_file_names_another_host_or_makes_markup_of_text() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )
        assert len(text.splitlines()) <= LONGEST_FILE, path.name


def test_the_files_are_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["service"]
    packed = {path for pattern in patterns for path in (ROOT / "service").glob(pattern)}
    assert set(FOLDER.iterdir()) <= packed
