"""What every part of a spec is built from."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final, Literal, NoReturn, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Positive = Annotated[float, Field(gt=0.0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]


_NO_NAME: Final = "Input should be a name such as '{example}', or an object with it, not {given}"
#: Where a boolean stands, somebody may have written a word.
_NOT_YAML: Final = "; YAML reads no, yes, on and off as booleans, unless they are in quotes"
_NO_NAMES: Final = {bool: "a boolean", type(None): "null", int: "a number", float: "a number", list: "a list"}


class SpecModel(BaseModel):
    """Base of every part of the spec: immutable, strict types, finite numbers, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _take_whole_numbers(cls, values: Any) -> Any:
        """JSON has one kind of number, and to its schemas 100.0 and 1e2 are integers."""
        if not isinstance(values, dict):
            return values
        whole = {
            name: int(value)
            for name in _whole_fields(cls)
            if isinstance(value := values.get(name), float) and value.is_integer()
        }
        return {**values, **whole} if whole else values


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Of an integer inside of a list, which `SpecModel` does not look into.
Whole = BeforeValidator(_whole)


@cache  # a spec has twenty parts, and specs are read everywhere
def _whole_fields(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if _is_whole(field.annotation))


def _is_whole(annotation: Any) -> bool:
    """`int`, with bounds or null beside it."""
    return annotation is int or any(_is_whole(inside) for inside in get_args(annotation))


def told_apart_by(field: str) -> Callable[[dict[str, Any]], None]:
    """For the JSON schema of a union's member: the field that says which it is has to be given.

    Its default is there for Python alone, where the class says which it is.
    """

    def require(schema: dict[str, Any]) -> None:
        schema["required"] = [field, *schema.get("required", [])]

    return require


def named(default: str, form: Any) -> BeforeValidator:
    """A bare string stands for the object of that name with its defaults; an object without a name is `default`'s."""
    members = get_args(get_args(form)[0]) if get_args(form) else (form,)
    names = tuple(name for member in members for name in get_args(member.model_fields["name"].annotation))

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if type(value) in _NO_NAMES:
            hint = _NOT_YAML if isinstance(value, bool) else ""
            given = {"example": default, "given": _NO_NAMES[type(value)]}
            raise PydanticCustomError("object_type", _NO_NAME + hint, given)
        return {"name": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(expand, json_schema_input_type=Literal[names] | form)


def refuse(place: tuple[str, ...], value: Any, code: str, message: str, **context: Any) -> NoReturn:
    """Refuse a combination of fields, each valid alone, with the place of the one to change.

    Raises:
        ValidationError: which pydantic adds to its own, at `place` within the model whose validator called this.
    """
    fault = InitErrorDetails(type=PydanticCustomError(code, message, context), loc=place, input=value)
    raise ValidationError.from_exception_data("Spec", [fault])
