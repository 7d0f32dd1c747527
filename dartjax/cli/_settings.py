"""Turn the documented fields of a frozen settings dataclass into command-line flags.

    @dataclasses.dataclass(frozen=True)
    class Settings:
        pairs: int = setting(1, "Pairs of views per subject.", lower_bound=1)
        views: str = setting("random", "How the C-arm stands.", choices=("random", "orthogonal"))

A field is a bool, int, float or str, one of these or None, or a tuple of str (written A,B,C, or
as plain arguments if it is positional). The module of a `Settings` must not import JAX, so that
help is shown at once.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

from dartjax._errors import DataError

_Settings = TypeVar("_Settings")
_NUMBERS = {int: flags.DEFINE_integer, float: flags.DEFINE_float}


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    lower_bound: int | float | None = None,
    upper_bound: int | float | None = None,
    positional: bool = False,
    hidden: bool = False,
) -> Any:
    """Make a field of a settings class, with its default, help text and allowed values.

    A `positional` field is a tuple of str given as plain arguments, at least one; a class has at
    most one such field. A `hidden` field is not shown in the help.
    """
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "bounds": {"lower_bound": lower_bound, "upper_bound": upper_bound},
        "positional": positional,
        "hidden": hidden,
    }
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(
    settings: type,
    values: flags.FlagValues,
    module: str,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> None:
    """Define a flag in `values` for every field, under the name `module`.

    `defaults` replaces the defaults of some fields.
    """
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = _plain_type(field.name, hints[field.name])
        _define(field, kind, defaults.get(field.name, field.default), values, module)


def positional_field(settings: type) -> "dataclasses.Field[Any] | None":
    """Return the field for plain arguments, if there is one."""
    fields = dataclasses.fields(settings)
    return next((field for field in fields if field.metadata["positional"]), None)


def shown_fields(settings: type) -> "list[dataclasses.Field[Any]]":
    """Return the fields whose flags are shown in the help."""
    shown = dataclasses.fields(settings)
    return [f for f in shown if not (f.metadata["positional"] or f.metadata["hidden"])]


def read_flags(settings: type[_Settings], values: flags.FlagValues) -> _Settings:
    """Make settings from parsed flags."""
    given = {}
    for field in dataclasses.fields(settings):  # pyright: ignore[reportArgumentType]
        value = values[field.name].value
        given[field.name] = tuple(value) if isinstance(value, list) else value
    return settings(**given)


def preload(
    config: Mapping[str, Any], values: flags.FlagValues, without: Sequence[str], job: str
) -> None:
    """Use the flags of an earlier run as defaults, except those in `without`.

    DataError for a name that is not a flag of this job, and for a value that is not allowed. `job`
    begins the message: the file, and what this job is.
    """
    for name, value in config.items():
        if name in without:
            continue
        if name not in values:
            raise DataError(f"{job} has no --{name}; it has {_names(values)}")
        try:
            values.set_default(name, value)
        except (flags.Error, TypeError, ValueError) as error:
            raise DataError(
                f"{job} has --{name}, but {name} = {value!r} is not allowed: {error}"
            ) from error


def _define(
    field: "dataclasses.Field[Any]",
    kind: type,
    default: Any,
    values: flags.FlagValues,
    module: str,
) -> None:
    name, help = field.name, field.metadata["help"]
    given: dict[str, Any] = {"flag_values": values, "module_name": module}
    if field.metadata["positional"]:
        flags.DEFINE_multi_string(
            name, list(default), help, **given
        )  # a file name may contain a comma
    elif choices := field.metadata["choices"]:
        flags.DEFINE_enum(name, default, list(choices), help, **given)
    elif kind is bool:
        flags.DEFINE_bool(name, default, help, **given)
    elif kind is tuple:
        flags.DEFINE_list(name, list(default), help, **given)
    elif kind is str:
        flags.DEFINE_string(name, default, help, **given)
    else:
        _NUMBERS[kind](name, default, help, **field.metadata["bounds"], **given)


def _plain_type(name: str, hint: Any) -> type:
    """Return the type of a flag: `str` for `str | None`, `tuple` for `tuple[str, ...]`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    kind = typing.get_origin(hint) or hint
    if kind not in (bool, int, float, str, tuple):
        raise TypeError(f"setting {name}: {hint} is not a supported type of a flag")
    return kind


def _names(values: flags.FlagValues) -> str:
    return ", ".join(f"--{name}" for name in sorted(values) if len(name) > 1)
