"""From `key=value` words, YAML files and keyword arguments to a SearchConfig."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.bounded import MOST_YAML_BYTES, one_line, parse_yaml, read_text, said, shown
from nas.config import SearchConfig, first_line, user_path
from nas.config_fields import allowed_values, leaves, path_of, validate
from nas.exhausted import out_of_memory, out_of_space
from nas.interrupts import Terminated
from nas.plugins import check_said
from nas.recipes import recipes_text

ConfigT = TypeVar("ConfigT")

LONGEST_ERROR = 4000  # characters; some list all that is known

# Names that belong to one run and are not taken over when its config.yaml is run again.
OF_ONE_RUN = ("run", "resume")
# Beginnings of keys that are not taken over from a run, which another person may have made: a cluster is sent the data
# and the person's token, and may answer with code.
OF_THE_PERSON = ("limits.", "ray.")


def settings_from_words(words: Sequence[str], schema: type[Any] = SearchConfig) -> dict[str, Any]:
    """The settings of a command line's `key=value` words, for `make_config`.

    Raises:
        ValueError: a word without `=`, or a value that is not YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{shown(word)} is not allowed; allowed: key=value (see --help)")
        settings[key] = parse_value(key, text, schema)
    return settings


def make_config(settings: Mapping[str, Any]) -> SearchConfig:
    """A search's configuration of settings, see `make`."""
    return make(settings, SearchConfig)


def make(settings: Mapping[str, Any], schema: type[ConfigT]) -> ConfigT:
    """The configuration of settings: dotted keys and nested mappings; `config`, a YAML file, is read first.

    Raises:
        ValueError: an unknown key (with a suggestion), a wrong type or a value out of range.
    """
    flat = _flatten(settings)
    file = flat.pop("config", None)
    merged = _defaults(schema)
    if file is not None:
        from_file = _of_file(file)
        check_said(from_file.get("plugins"), flat.get("plugins"), one_line(f"config={file}"))
        merged = _merge(merged, from_file, schema)
    merged = _merge(merged, flat, schema)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, schema)
    validate(config)
    return config


class Failed(RuntimeError):
    """What a command was asked for could not be done, or not all of it, though nothing was wrong with the input."""


def exit_code(program: str, act: Callable[[], object]) -> int:
    """Does what a command is for; 0, or what went wrong, which is said in one line.

    1 if it `Failed` or the machine had too little space or memory, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    try:
        act()
    except (Failed, ValueError) as error:
        print(f"{program}: {one_line(str(error), LONGEST_ERROR)}", file=sys.stderr)
        return 1 if isinstance(error, Failed) else 2
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        print(f"{program}: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
        return 143 if terminated else 130
    except Exception as error:
        if not (out_of_space(error) or out_of_memory(error)):
            raise
        print(f"{program}: {first_line(error)}", file=sys.stderr)
        return 1
    return 0


def given_keys(settings: Mapping[str, Any]) -> set[str]:
    """The dotted keys that settings name, `config` among them; that file is not read."""
    return set(_flatten(settings))


def given_keys_and_of_file(settings: Mapping[str, Any]) -> set[str]:
    """The dotted keys that settings name, with those of their `config` file in its place.

    Raises:
        ValueError: the file cannot be read.
    """
    file = _flatten(settings).get("config")
    return (given_keys(settings) - {"config"}) | set(_of_file(file) if file is not None else ())


def words_to_repeat(config: SearchConfig) -> list[str]:
    """What the command that goes on with a run has to say again: it is not taken over from the run's file."""
    plugins = [f"plugins=[{','.join(config.plugins)}]"] if config.plugins else []
    return [*plugins, *([f"ray.address={config.ray.address}"] if config.ray.address else [])]


def _of_file(file: object) -> dict[str, Any]:
    """What a `config` file says, by dotted keys."""
    read = _flatten(read_settings(one_line(f"config={file}"), user_path("config", str(file))))
    return {key: value for key, value in read.items() if key not in OF_ONE_RUN}


def config_to_yaml(config: SearchConfig) -> str:
    """The configuration as YAML that `config=FILE` reads back."""
    words = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(words, dict)
    beside = {f"data.{name}": value for name, value in words.pop("data_options").items()}  # `data` is a word itself
    return OmegaConf.to_yaml(OmegaConf.create({**words, **beside}))


def help_text() -> str:
    """What the search command takes."""
    return (
        "Searches a space for networks that are accurate and fast, and exports the Pareto front.\n\n"
        "    python -m nas.search space=mobile budget=100\n"
        '    python -m nas.search space=reducenet data=photos/ "objectives=[error,params]" train.epochs=30\n\n'
        + table_of_keys(SearchConfig())
        + "\n\n"
        + recipes_text()
    )


def table_of_keys(config: Any) -> str:
    """Every key of a configuration with type, default, unit and meaning, from its dataclasses."""
    again = "; runs/NAME/config.yaml runs that search again" if isinstance(config, SearchConfig) else ""
    rows = [("config", "str", "none", f"YAML file of settings{again}")]
    for key, (each, value) in leaves(config).items():
        meaning = each.metadata["meaning"]
        limits = allowed_values(each)
        notes = [each.metadata["unit"]] if each.metadata["unit"] else []
        notes += [limits] if limits else []
        shown = "none" if value is None else str(value).replace("'", "").replace(" ", "")
        kind = str(each.type).replace(" | None", "")
        rows.append((key, kind, shown, meaning + (f" [{'; '.join(notes)}]" if notes else "")))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    table = "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)
    return "key, type, default, meaning [unit; allowed]\n\n" + table


def parse_value(key: str, text: str, schema: type[Any] = SearchConfig) -> Any:
    """What a word's text stands for: text for words (`run=007`), YAML for all else; `none` for nothing."""
    known = leaves(schema())
    kind = str(known[key][0].type) if key in known else ""
    if "None" in kind and text in ("none", "null", ""):
        return None
    if kind.startswith("str"):
        return text
    try:
        return parse_yaml(text)
    except ValueError as error:
        wanted = f"; allowed: {_wanted(known[key][0])}" if key in known else ""
        raise ValueError(f"{said(key)}={said(text)} is not allowed: {error}{wanted}") from None


@functools.cache  # it takes longer than all the rest
def _defaults(schema: type[Any]) -> DictConfig:
    """A schema's defaults as OmegaConf has them; never changed, since it merges into copies."""
    defaults = OmegaConf.structured(schema)
    for section in defaults.values():
        if isinstance(section, DictConfig):
            # OmegaConf 2.3, which the extra executorch brings, merges nothing into frozen dataclasses in others.
            OmegaConf.set_readonly(section, False)
    return defaults


def _flatten(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat |= _flatten(dataclasses.asdict(value), f"{prefix}{key}.")
        else:
            plain = value.item() if isinstance(value, np.generic) else value
            flat[f"{prefix}{key}"] = str(plain) if isinstance(plain, Path) else plain
    return flat


def read_settings(what: str, file: Path) -> dict[str, Any]:
    """The settings in a YAML file, as they are written there; `what` it is begins each message.

    Raises:
        ValueError: no such file, or not a mapping.
    """
    try:
        loaded = parse_yaml(read_text(file, MOST_YAML_BYTES))
    except ValueError as error:
        raise ValueError(f"{what} cannot be read: {error}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{what} is not a mapping of settings")
    return loaded


def _merge(base: Any, flat: Mapping[str, Any], schema: type[Any]) -> Any:
    known = leaves(schema())
    for key in flat:
        if key not in known:
            close = difflib.get_close_matches(key, [*known, "config"], n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "see --help"
            raise ValueError(f"unknown key {shown(key)}: {hint}")
    try:
        # At once, since OmegaConf copies the whole configuration for each merge.
        return OmegaConf.merge(base, _nested(flat, schema))
    except (OmegaConfBaseException, ValueError, TypeError, OverflowError):
        pass  # one of them: which?
    for key, value in flat.items():
        try:
            OmegaConf.merge(base, _nested({key: value}, schema))
        except (OmegaConfBaseException, ValueError, TypeError, OverflowError):
            raise ValueError(f"{key}={said(value)} is not allowed; allowed: {_wanted(known[key][0])}") from None
    raise AssertionError("what cannot be merged together can be merged one by one")


def _wanted(each: dataclasses.Field[Any]) -> str:
    """The type of a setting and its limits, in words."""
    allowed = allowed_values(each)
    return str(each.type).replace(" | None", "") + (f", {allowed}" if allowed else "")


def _nested(flat: Mapping[str, Any], schema: type[Any]) -> dict[str, Any]:
    """Settings of known dotted keys as OmegaConf merges them.

    Raises:
        ValueError: OmegaConf would take one for something else.
    """
    usual, nested = schema(), {}
    known = leaves(usual)
    for key, value in flat.items():
        each, default = known[key]
        if isinstance(value, bool) and "bool" not in str(each.type):
            raise ValueError
        if isinstance(default, list) and isinstance(value, str):
            raise ValueError
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, Mapping | list | tuple) for part in parts):
            raise ValueError  # OmegaConf takes a list for a word
        if any(isinstance(part, str) and ("${" in part or part in ("", "???")) for part in parts):
            raise ValueError  # to OmegaConf, references and missing values
        *parts, last = path_of(usual, key)
        place: dict[str, Any] = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = list(value) if isinstance(value, tuple) else value
    return nested
