"""What every part of a spec is built from."""

from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Positive = Annotated[float, Field(gt=0.0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]


class SpecModel(BaseModel):
    """Base of every part of the spec: immutable, strict types, finite numbers, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def named(default: str, form: Any) -> BeforeValidator:
    """A bare string stands for the object of that name with its defaults; an object without a name is `default`'s."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(expand, json_schema_input_type=str | form)


def refuse(place: tuple[str, ...], value: Any, code: str, message: str, **context: Any) -> NoReturn:
    """Refuse a combination of fields, each valid alone, with the place of the one to change.

    Raises:
        ValidationError: which pydantic adds to its own, at `place` within the model whose validator called this.
    """
    fault = InitErrorDetails(type=PydanticCustomError(code, message, context), loc=place, input=value)
    raise ValidationError.from_exception_data("Spec", [fault])
