import subprocess
import sys

import pytest

import gradprobe

HEAVY = ("torch", "celery", "sqlalchemy", "alembic", "fastapi", "pydantic_settings", "psutil")


@pytest.mark.parametrize(
    ("statement", "also_absent"),
    [
        ("import gradprobe", ("httpx", "numpy", "typer")),
        ("import gradprobe; gradprobe.Spec", ("httpx", "typer")),
        ("import gradprobe; gradprobe.Client", ("typer",)),
        ("import gradprobe.cli", ()),
    ],
)
def test_what_a_user_imports_stays_light(statement: str, also_absent: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print([name for name in {HEAVY + also_absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonesuch"):
        gradprobe.Nonesuch  # noqa: B018
    assert {"Client", "Spec", "__version__"} <= set(dir(gradprobe))
