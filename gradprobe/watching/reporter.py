from typing import Any


class Reporter:
    id: str | None

    def put(self, *a: Any) -> None: ...
    def end(self, s: float) -> None: ...
