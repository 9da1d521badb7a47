"""An answer as a document, or as one of this package's errors."""

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from gradprobe.client.errors import ProblemError, UnexpectedAnswer
from gradprobe.resources import Problem

_EXCERPT = 120

Document = TypeVar("Document", bound=BaseModel)


def parse(document: type[Document], answer: httpx.Response) -> Document:
    """The document in a successful answer.

    Raises:
        UnexpectedAnswer: the body is something else, so this is not a Gradprobe server, or one from another age.
    """
    try:
        return document.model_validate_json(answer.content)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"{answer.url} did not answer with a document of a Gradprobe server; is this the right URL? "
            f"The answer begins: {_excerpt(answer)}",
            answer.status_code,
        ) from error


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is a success.

    Raises:
        ProblemError: the server answered with problem details.
        UnexpectedAnswer: another error's page, such as a proxy's.
    """
    if not answer.is_success:
        raise _failure(answer)
    return answer


def _failure(answer: httpx.Response) -> ProblemError | UnexpectedAnswer:
    try:
        return ProblemError(Problem.model_validate_json(answer.content))
    except ValidationError:
        return UnexpectedAnswer(
            f"{answer.request.method} {answer.url} was answered {answer.status_code} {answer.reason_phrase} "
            f"by something other than a Gradprobe server (a proxy?): {_excerpt(answer)}",
            answer.status_code,
        )


def _excerpt(answer: httpx.Response) -> str:
    words = " ".join(answer.text.split())
    return (words[:_EXCERPT] + "…" if len(words) > _EXCERPT else words) or "(nothing)"
