"""Levels of the factors "activation" and "data": how a study file spells them, and what they build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_serializer, model_validator
from torch import nn

from smoothness._checks import check_choice
from smoothness.activations import activation, mollify
from smoothness.activations.dials import dial, find_dial
from smoothness.data import Dataset, list_datasets, load_dataset
from smoothness.study.fields import (
    Flag,
    Label,
    Number,
    Parameters,
    Settings,
    call_label,
    listed,
    tried,
    written,
)
from smoothness.study.imports import ImportPath, load_name


class _Level(Settings):
    """One level under a label; a label that is not given is made from the settings."""

    label: Label = ""

    @property
    def spec(self) -> str:
        """The level's settings as one short text; the label where none is given."""
        raise NotImplementedError

    def _labelled(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.spec)


class CatalogueLevel(_Level):
    """An activation of the catalogue with parameters."""

    name: str
    parameters: dict[str, Number] = Field(default={})

    @property
    def spec(self) -> str:
        """Such as "softplus(beta=4)"."""
        return call_label(self.name, self.parameters)

    def build(self, allowed: tuple[str, ...] = ()) -> nn.Module:
        """The activation."""
        return activation(self.name, **self.parameters)

    @model_validator(mode="after")
    def _known(self) -> CatalogueLevel:
        tried(self.build)
        self._labelled()
        return self


class DialLevel(_Level):
    """One setting of a dial, with output moments held at the reference's."""

    dial: str
    value: Number
    hold: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    reference: str | None = None

    @property
    def spec(self) -> str:
        """Such as "softplus(beta=4)", or "softplus(beta=4; mean of relu)" with the mean held."""
        turned = find_dial(self.dial)
        text = call_label(turned.name, {turned.parameter: self.value})
        held = f"; {'+'.join(self.hold)} of {self.reference or turned.limit})"
        return text[:-1] + held if self.hold else text

    def build(self, allowed: tuple[str, ...] = ()) -> nn.Module:
        """The activation at this setting."""
        return dial(self.dial, self.value, hold=self.hold, reference=self.reference)

    @model_validator(mode="after")
    def _known(self) -> DialLevel:
        tried(self.build)
        _reference_needs_hold(self)
        self._labelled()
        return self


class DialRange(Settings):
    """Several settings of a dial in equal steps on a scale: one level each."""

    dial: str
    steps: Annotated[int, Field(ge=2, le=1000, strict=True)]
    scale: str = "parameter"
    smooth: Number | None = None
    sharp: Number | None = None
    log: Flag = False
    hold: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    reference: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _either(cls, value: Any) -> Any:
        if "value" in value:
            raise ValueError("value and steps exclude each other: value names one level, steps several; drop one")
        if "label" in value:
            raise ValueError("a label names one level; leave it out where steps gives several")
        return value

    @model_validator(mode="after")
    def _known(self) -> DialRange:
        tried(self.expand)
        _reference_needs_hold(self)
        return self

    def expand(self) -> list[DialLevel]:
        """One level for each step."""
        turned = find_dial(self.dial)
        values = turned.steps(self.steps, self.scale, smooth=self.smooth, sharp=self.sharp, log=self.log)
        return [DialLevel(dial=self.dial, value=v, hold=self.hold, reference=self.reference) for v in values]


class MollifyLevel(_Level):
    """An activation of the catalogue convolved with a Gaussian."""

    mollify: str
    sigma: Number
    parameters: dict[str, Number] = Field(default={})

    @property
    def spec(self) -> str:
        """Such as "relu@sigma=0.1"."""
        return f"{call_label(self.mollify, self.parameters)}@sigma={written(self.sigma)}"

    def build(self, allowed: tuple[str, ...] = ()) -> nn.Module:
        """The mollified activation."""
        return mollify(activation(self.mollify, **self.parameters), self.sigma)

    @model_validator(mode="after")
    def _known(self) -> MollifyLevel:
        tried(self.build)
        self._labelled()
        return self


class MollifyRange(Settings):
    """Several widths of the Gaussian: one level each."""

    mollify: str
    sigma: Annotated[tuple[Number, ...], Field(min_length=1)]
    parameters: dict[str, Number] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _no_label(cls, value: Any) -> Any:
        if "label" in value:
            raise ValueError("a label names one level; leave it out where sigma is a list")
        return value

    @model_validator(mode="after")
    def _known(self) -> MollifyRange:
        tried(self.expand)
        return self

    def expand(self) -> list[MollifyLevel]:
        """One level for each sigma."""
        return [MollifyLevel(mollify=self.mollify, sigma=s, parameters=self.parameters) for s in self.sigma]


class ImportLevel(_Level):
    """Somebody's own activation: a class or a function that returns a module."""

    import_: ImportPath = Field(alias="import")
    parameters: Parameters = Field(default={})

    @property
    def spec(self) -> str:
        """Such as "mypackage.module:Wavy(depth=2)"."""
        return call_label(self.import_, self.parameters)

    def build(self, allowed: tuple[str, ...] = ()) -> nn.Module:
        """Import the name when its package is allowed, and call it with the parameters."""
        built = call_imported(self.import_, self.parameters, allowed)
        if not isinstance(built, nn.Module):
            raise ValueError(f"{self.import_} gave a {type(built).__name__}; it must give an nn.Module")
        return built

    @model_validator(mode="after")
    def _known(self) -> ImportLevel:
        self._labelled()
        return self


def _reference_needs_hold(level: DialLevel | DialRange) -> None:
    if level.reference is not None and not level.hold:
        raise ValueError("reference says whose moments are held; give hold, such as hold = ['mean'], or drop it")


def _kind(value: Any) -> str | None:
    """Which of the five ways of naming levels a table takes."""
    if isinstance(value, str):
        return "<name>"
    if isinstance(value, Settings):
        return next(tag for tag, kind in KINDS.items() if isinstance(value, kind))
    if not isinstance(value, dict):
        return None
    if "dial" in value:
        return "<dial range>" if "steps" in value else "<dial>"
    if "mollify" in value:
        return "<mollify range>" if isinstance(value.get("sigma"), list | tuple) else "<mollify>"
    if "import" in value or "import_" in value:
        return "<import>"
    return "<name>" if "name" in value else None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


KINDS: dict[str, type[Settings]] = {
    "<name>": CatalogueLevel,
    "<dial>": DialLevel,
    "<dial range>": DialRange,
    "<mollify>": MollifyLevel,
    "<mollify range>": MollifyRange,
    "<import>": ImportLevel,
}
ActivationLevel = CatalogueLevel | DialLevel | MollifyLevel | ImportLevel
if TYPE_CHECKING:
    ActivationEntry = ActivationLevel  # what is left once ranges are expanded
else:
    ActivationEntry = Annotated[
        Annotated[CatalogueLevel, BeforeValidator(_named), Tag("<name>")]
        | Annotated[DialLevel, Tag("<dial>")]
        | Annotated[DialRange, Tag("<dial range>")]
        | Annotated[MollifyLevel, Tag("<mollify>")]
        | Annotated[MollifyRange, Tag("<mollify range>")]
        | Annotated[ImportLevel, Tag("<import>")],
        Discriminator(
            _kind,
            custom_error_type="unknown_level",
            custom_error_message="must be a name in quotes, or a table with name, dial, mollify or import",
        ),
    ]


class DataLevel(_Level):
    """One data set: a name with options, or somebody's own function that returns a `Dataset`."""

    name: str = ""
    import_: ImportPath | None = Field(default=None, alias="import")
    options: Parameters = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return _named(value)

    @model_validator(mode="after")
    def _known(self) -> DataLevel:
        if bool(self.name) == (self.import_ is not None):
            raise ValueError("give either name, one of the data sets, or import, your own function")
        if self.name:
            check_choice("data set", self.name, list_datasets())
        self._labelled()
        return self

    @property
    def spec(self) -> str:
        """Such as "gaussians(dimensions=5)"; a path is no part of it."""
        return call_label(self.name or str(self.import_), {k: v for k, v in self.options.items() if k != "path"})

    @field_serializer("options")
    def _written(self, options: dict[str, Any]) -> dict[str, Any]:
        return without_directories(options)

    def build(self, allowed: tuple[str, ...] = ()) -> Dataset:
        """Load the data set."""
        if self.import_ is None:
            return load_dataset(self.name, **self.options)
        data = call_imported(self.import_, self.options, allowed)
        if not isinstance(data, Dataset):
            raise ValueError(f"{self.import_} gave a {type(data).__name__}; it must give a smoothness Dataset")
        return data


def without_directories(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the last part of a path alone: where data lie is no setting of a study, what they hold is.

    >>> without_directories({"path": "/home/somebody/cifar-10-batches-py", "seed": 1})
    {'path': 'cifar-10-batches-py', 'seed': 1}
    """
    return {k: Path(v).name if k == "path" and isinstance(v, str) else v for k, v in options.items()}


def call_imported(path: str, parameters: dict[str, Any], allowed: tuple[str, ...], *first: Any) -> Any:
    """What somebody's class or function gives for the parameters; its own errors become ValueErrors."""
    call: Callable[..., Any] = load_name(path, allowed)
    if not callable(call):
        raise ValueError(f"{path} is a {type(call).__name__}; it must be a class or a function")
    try:
        return call(*first, **parameters)
    except Exception as error:  # somebody's code may raise anything
        raise ValueError(f"{path} raised {type(error).__name__}: {error}") from error
