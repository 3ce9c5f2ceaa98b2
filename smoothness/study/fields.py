"""Kinds of values that a study file holds, and the errors they give."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file, key and remedy."""


class SeveralProblemsError(ValueError):
    """Several problems at once, each a whole line: "key: what is wrong; remedy"."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Settings(BaseModel):
    """A table of settings: unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


def is_number(value: Any) -> bool:
    """Whether a TOML value is a number that a float can hold; true and false are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 10**308 if isinstance(value, int) else True


def parsed_ratio(value: Any) -> Any:
    """Accept "8/255" beside 0.0314."""
    if isinstance(value, str) and value.count("/") < 2 and len(value) < 60 and "e" not in value.lower():
        above, _, below = value.partition("/")
        try:
            return float(Fraction(above.strip()) / Fraction(below.strip() or 1))
        except (ValueError, ZeroDivisionError, OverflowError):
            pass
    if not is_number(value):
        raise ValueError("expected a number or a fraction such as '8/255'")
    return value


def _number(value: Any) -> Any:
    if not is_number(value) or math.isnan(value):
        raise ValueError("expected a number")
    return value


def _gain(value: Any) -> Any:
    if not (value == "auto" or (is_number(value) and 0 < value < math.inf)):
        raise ValueError("expected 'auto' or a positive number")
    return value if value == "auto" else float(value)


def _parameter(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_parameter(item) for item in value]
    if not isinstance(value, bool | str):
        _number(value)
    return value


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be printable text on one line")
    return value


def _label(value: str) -> str:
    if value.strip() != value or not value.isprintable():
        raise ValueError(f"label {value!r} must be printable text without spaces at its ends")
    return value


def listed(value: Any) -> Any:
    """One entry in the place of a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


Number = Annotated[float | int, BeforeValidator(_number)]
Ratio = Annotated[float, BeforeValidator(parsed_ratio), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Size = Annotated[int, Field(ge=1, le=2**16, strict=True)]  # of a layer, or layers
Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # what torch's generators accept
Flag = Annotated[bool, Field(strict=True)]
Gain = Annotated[float | Literal["auto"], BeforeValidator(_gain)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_text)]
Label = Annotated[str, Field(max_length=100), AfterValidator(_label)]
# What a TOML file can hand to somebody's own code: text, numbers, true and false, lists of them.
Parameters = dict[str, Annotated[Any, BeforeValidator(_parameter)]]


def tried(build: Callable[[], T]) -> T:
    """What `build` gives; whatever goes wrong with the values becomes a ValueError."""
    try:
        return build()
    except ValidationError as error:
        raise ValueError(
            "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        ) from error
    except ValueError:
        raise
    except (TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def written(value: float | int | str) -> str:
    """A level as a label spells it: six digits of what is no whole number."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def call_label(name: str, parameters: dict[str, Any]) -> str:
    """A name with its parameters.

    >>> call_label("softplus", {"beta": 4.0}), call_label("relu", {})
    ('softplus(beta=4)', 'relu')
    """
    values = ",".join(f"{key}={written(v) if is_number(v) else v}" for key, v in parameters.items())
    text = "".join(c if c.isprintable() else " " for c in f"{name}({values})" if values) or name
    return text if len(text) <= 100 else f"{text[:98]}…)"
