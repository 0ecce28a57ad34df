"""The arguments of every command, made from the parameters of the function that runs it.

pydantic-settings was chosen over jsonargparse and tyro, which were tried as well: it alone lists the settings of every
member of a union such as `DataConfig | SimulatedDataConfig`, each with its meaning and default, and it shows no types
of Python. It makes the arguments only: the text of a setting is read as that of `key=value` is, so both give the same
values and the same errors.
"""

from __future__ import annotations

import difflib
import inspect
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import create_model
from pydantic_settings import CliPositionalArg, CliSettingsSource

from deflare_core.config import ReadingConfig
from deflare_core.system.errors import make_plain, shorten
from deflare_core.system.settings import StrictModel, list_settings, load_config, make_config

Function = Callable[..., int | None]
"""What runs a command. A parameter is an option if it is keyword-only or has a default, and a positional otherwise.

A parameter `from_` is the option `from`, a word of Python. The fields of a parameter `reading` are options too. A
parameter `config` holds settings; its annotation names the file that they are read from.
"""


SHORTCUTS = {"parameter": "p", "input": "i", "output": "o", "quiet": "q"}
"""Options that have a short form as well, in every command that has them."""


class Parameters(NamedTuple):
    """What a command takes: options and positionals, the positionals' names, its settings, and the file of these."""

    options: type[StrictModel]
    positionals: list[str]
    config: type[StrictModel] | None
    file: str | None


def read_arguments(function: Function, command: str, about: str, words: list[str]) -> dict[str, Any]:
    """What to call the function of a command with, from the words that follow its name.

    Raises
    ------
    ConfigError
        When an option, a setting or the file of settings cannot be used.
    """
    parameters, origin = find_parameters(function), f"deflare {command}"
    options, settings = _parse_words(_make_parser(origin, about, parameters), parameters, words)
    file = options.pop("config", None)
    checked = dict(make_config(parameters.options, options, origin=origin))
    checked = {f"{name}_" if iskeyword(name) else name: value for name, value in checked.items()}
    if issubclass(parameters.options, ReadingConfig):
        said = ReadingConfig(**{name: checked.pop(name) for name in ReadingConfig.model_fields})
        checked["reading"] = said.reading
    if parameters.config and file:
        checked["config"] = load_config(parameters.config, file, settings)
    elif parameters.config:
        checked["config"] = make_config(parameters.config, {}, settings, origin=origin)
    return checked


def find_parameters(function: Function) -> Parameters:
    """The parameters of the function of a command."""
    parameters = dict(inspect.signature(function, eval_str=True).parameters)
    reading, config = parameters.pop("reading", None), parameters.pop("config", None)
    fields: dict[str, Any] = {}
    positionals: list[str] = []
    positional: Any = CliPositionalArg
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty
        name = name.removesuffix("_")
        fields[name] = (parameter.annotation, ... if is_required else parameter.default)
        if is_required and parameter.kind is not parameter.KEYWORD_ONLY:
            fields[name] = (positional[parameter.annotation], ...)
            positionals.append(name.replace("_", "-").upper())
    base: type[StrictModel] = ReadingConfig if reading else StrictModel
    options: type[StrictModel] = create_model(function.__name__, __base__=base, **fields)
    cls, file = (get_args(config.annotation) or (config.annotation, None)) if config else (None, None)
    return Parameters(options, positionals, cls, file)


def list_flags(parameters: Parameters) -> list[str]:
    """The options and settings of a command, as they are written on the command line."""
    names = [name.replace("_", "-") for name in parameters.options.model_fields]
    flags = [f"--{name}" for name in names if name.upper() not in parameters.positionals]
    settings = [f"--{key}" for key in list_settings(parameters.config)] if parameters.config else []
    return [*flags, *(["--config"] if parameters.config else []), *settings, "--help"]


def list_examples(program: str) -> list[str]:
    """The uses of a command, such as "deflare view", that the README of this folder shows."""
    lines = Path(__file__).with_name("README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if f"{line} ".startswith(f"{program} ")]


def _make_parser(program: str, about: str, parameters: Parameters) -> ArgumentParser:
    settings = ["[KEY=VALUE ...]"] if parameters.config else []
    usage = " ".join(["%(prog)s", *parameters.positionals, "[OPTION ...]", *settings])
    examples = "\n".join(f"  {line}" for line in list_examples(program))
    parser = ArgumentParser(program, usage, about, f"examples:\n{examples}", allow_abbrev=False)
    parser.formatter_class = RawDescriptionHelpFormatter
    options = [name for name in SHORTCUTS if name in parameters.options.model_fields]
    style: dict[str, Any] = {
        "cli_shortcuts": {name: SHORTCUTS[name] for name in options if name.upper() not in parameters.positionals},
        "cli_implicit_flags": "toggle",
        "cli_kebab_case": True,
        "cli_enforce_required": True,
    }
    _add_arguments(parser, parameters.options, **style)
    if parameters.config:
        meaning = "file of settings" + (f" (default: {parameters.file})" if parameters.file else "")
        parser.add_argument("--config", type=Path, default=parameters.file, help=meaning)
        _add_arguments(parser, parameters.config, cli_implicit_flags=True)
    return parser


def _add_arguments(parser: ArgumentParser, model: type[StrictModel], **style: Any) -> None:
    """Give the parser an argument for each field of a model."""

    def add_argument(container: ArgumentParser, *names: str, **settings: Any) -> None:
        if settings.get("action") == "append":
            del settings["action"]  # A list is one value, written as in YAML.
        field = model.model_fields.get(settings.get("dest", ""))
        if field and isinstance(field.json_schema_extra, dict):  # Of a value of several words.
            settings |= field.json_schema_extra | {"metavar": tuple(str(field.json_schema_extra["metavar"]).split())}
        container.add_argument(*names, **settings)

    CliSettingsSource(
        model,  # type: ignore[arg-type]  # It reads nothing of a model but its fields.
        root_parser=parser,
        add_argument_method=add_argument,
        cli_hide_none_type=True,
        **style,
    )


def _parse_words(parser: ArgumentParser, parameters: Parameters, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options and positionals among the words of a command by name, and its settings, written key=value.

    A word that is neither ends the program with a message that names the nearest option.
    """
    # Before it is parsed: of a misspelt option that is required, argparse says only that it is missing.
    before_names = words[: words.index("--")] if "--" in words else words
    known = parser._option_string_actions
    misspelt = [word for word in before_names if word.startswith("--") and word.partition("=")[0] not in known]
    _refuse(misspelt, parser, parameters)
    found, rest = parser.parse_known_args(words)
    strange = [word for word in rest if word.startswith("-") or "=" not in word or not parameters.config]
    _refuse(strange, parser, parameters)
    given = vars(found)
    options = {name: given.pop(name) for name in ("config", *parameters.options.model_fields) if name in given}
    settings = {name: str(text).lower() if isinstance(text, bool) else text for name, text in given.items()}
    return options, [*rest, *(f"{name}={text}" for name, text in settings.items())]


def _refuse(strange: list[str], parser: ArgumentParser, parameters: Parameters) -> None:
    """End the program with the nearest option to the first of some words, if there are any."""
    if strange:
        near = difflib.get_close_matches(strange[0].partition("=")[0], list_flags(parameters), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        hint += "; a setting is written key=value" if parameters.config else ""
        parser.error(make_plain(f"unrecognized arguments: {shorten(' '.join(strange))}{hint}"))
