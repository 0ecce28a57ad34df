"""Settings: typed models with one documented field each, read from YAML and dotted overrides.

An unknown key is an error that names the nearest known one, so a misspelt setting never runs with its default.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from deflare_core.system.documents import DEEPEST, DocumentError, parse_yaml
from deflare_core.system.errors import QUOTED, DeflareError, quote, shorten
from deflare_core.system.input_files import check_input

MOST_TOLD = 4
"""Errors of one configuration that a message tells of."""


class ConfigError(DeflareError):
    """A configuration that cannot be used; the message names the file, the key, the value and what to do."""


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys; its fields' docstrings are their documentation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        # To pydantic true is 1; in a file it is a slip, or what YAML makes of the words on and yes.
        kinds = str(cls.model_fields[info.field_name or ""].annotation)
        is_number = ("int" in kinds or "float" in kinds) and "bool" not in kinds
        if is_number and any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value])):
            raise ValueError("must be a number, not true or false")
        return value


Config = TypeVar("Config", bound=StrictModel)


def load_config(cls: type[Config], path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with dotted overrides such as `trainer.max_steps=10` applied.

    Raises
    ------
    ConfigError
        When the file is missing or not YAML, a key is unknown, or a value is unfit; the message says which.
    """
    path = Path(path)
    check_input(path, ConfigError)
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start}); save it so.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: must hold key: value settings; found {type(settings).__name__}.")
    return make_config(cls, settings, overrides, origin=str(path))


def make_config(
    cls: type[Config], settings: dict[str, Any], overrides: Sequence[str] = (), origin: str = "configuration"
) -> Config:
    """The configuration from a nested dictionary with dotted overrides applied; errors begin with `origin`."""
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise ConfigError(
                f"An override is written key=value, such as trainer.max_steps=10; received {quote(override)}."
            )
        if dotted.count(".") > DEEPEST:
            raise ConfigError(f"there is no setting {quote(dotted)}.")
        kinds = list_kinds(list_settings(cls).get(dotted))
        is_text = {Path, str} & kinds and kinds <= {Path, str, type(None)}
        settings = _replace(settings, dotted, read_text(text, kinds) if is_text else read_value(dotted, text))
    try:
        return cls.model_validate(settings)
    except ValidationError as error:
        found = _pick_members(cls, error)
        rest = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise ConfigError(f"{origin}: " + "; ".join(_explain(cls, e) for e in found[:MOST_TOLD]) + rest) from None


def list_set(config: StrictModel) -> dict[str, tuple[Any, Any]]:
    """The settings that are not as they are by default, by dotted name: each value, and its default."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, field in type(config).model_fields.items():
        value, usual = getattr(config, name), field.get_default(call_default_factory=True)
        if isinstance(value, StrictModel):
            found |= {f"{name}.{below}": pair for below, pair in list_set(value).items()}
        elif value != usual:
            found[name] = (value, None if field.is_required() else usual)
    return found


def list_changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """What two nested dictionaries of settings both have and hold differently: "one -> other" by dotted name."""
    found: dict[str, str] = {}
    for name in sorted(before.keys() & now.keys()):
        one, other = before[name], now[name]
        if isinstance(one, dict) and isinstance(other, dict):
            found |= {f"{name}.{below}": change for below, change in list_changes(one, other).items()}
        elif one != other:
            found[name] = f"{one} -> {other}"
    return found


def _replace(settings: Any, dotted: str, value: Any, above: str = "") -> dict[str, Any]:
    """A copy of the group of settings called `above` with one below it set."""
    if not isinstance(settings, dict):
        raise ConfigError(
            f"'{above}.{dotted}': '{above}' is one setting, not a group of them; write {above}=VALUE "
            f"(it is {quote(settings)} so far)."
        )
    head, *below = dotted.split(".", 1)
    if below:
        value = _replace(settings.get(head) or {}, below[0], value, f"{above}.{head}".lstrip("."))
    return {**settings, head: value}


def read_value(name: str, text: str) -> Any:
    """A setting's value from its text, read as YAML; a ConfigError if it is not YAML."""
    try:
        return parse_yaml(text)
    except DocumentError as error:
        raise ConfigError(
            f"'{shorten(name)}': cannot be read ({error}); received {quote(text)}. Write it as in YAML, "
            'such as 10, 1e-3, true, [8, 16] or "some text".'
        ) from error


def read_text(text: str, kinds: set[Any]) -> str | None:
    """A path or a name from its text, whatever else YAML would make of it: 20240501, on and #1.h5 are names of files.

    Quotes around it are taken off; null is none where a setting of these kinds may be none.
    """
    if type(None) in kinds and text in ("null", "~", ""):
        return None
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def list_kinds(field: FieldInfo | None) -> set[Any]:
    """The types that a setting may be of; of one that does not exist none."""
    if field is None:
        return set()
    is_union = get_origin(field.annotation) in (Union, UnionType)
    return set(get_args(field.annotation) if is_union else (field.annotation,))


def _pick_members(cls: type[BaseModel], error: ValidationError) -> list[Any]:
    """The errors of a model; where groups form a union, those of the member that has the fewest, named as the union."""
    groups = {group.__name__ for field in list_settings(cls).values() for group in list_groups(field)}
    by_union: dict[tuple, dict[str, list[Any]]] = {}
    for found in error.errors():
        member = next((part for part in found["loc"] if part in groups), "")
        union = found["loc"][: found["loc"].index(member)] if member else ()
        key = {**found, "loc": tuple(part for part in found["loc"] if part != member)}
        by_union.setdefault(union, {}).setdefault(str(member), []).append(key)
    return [found for members in by_union.values() for found in min(members.values(), key=len)]


def _explain(cls: type[BaseModel], error: Any) -> str:
    """One sentence for one pydantic error."""
    dotted = shorten(".".join(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        known = list_settings(cls)
        near = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
        return f"unknown key '{dotted}'; {hint}"
    if error["type"] == "missing":
        return f"the key '{dotted}' is missing"
    if error["type"] in ("path_type", "string_type"):
        return f"'{dotted}': must be text; write it in quotes (received {quote(error['input'])})"
    message = shorten(error["msg"].removeprefix("Value error, "), 2 * QUOTED)
    return f"'{dotted}': {message} (received {quote(error['input'])})" if dotted else message


def list_settings(cls: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """The settings of a model, and of the groups in it, by dotted name; of a union of groups those of every member."""
    keys = {}
    for name, field in cls.model_fields.items():
        keys[prefix + name] = field
        for group in list_groups(field):
            keys |= list_settings(group, f"{prefix}{name}.")
    return keys


def list_groups(field: FieldInfo) -> list[type[BaseModel]]:
    """The models that a setting may hold; none: it is one value."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    members = get_args(field.annotation) if is_union else (field.annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
