"""Options of a job from a TOML file: ``--config FILE``."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class JobParser(argparse.ArgumentParser):
    """A parser with the option ``--config``: a TOML file with values of the other options.

    Its keys are the options' names, such as ``batch-size`` or ``batch_size``. Options that are
    given on the command line win.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument(
            "--config", type=Path, metavar="FILE",
            help="a TOML file with values of these options; those given here win",
        )  # fmt: skip

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, with the file's values as defaults."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config", type=Path)
        try:
            path = first.parse_known_args(args)[0].config
        except argparse.ArgumentError:  # for which the parser below has the words
            path = None
        if path is not None:
            try:
                self._take(path)
            except (OSError, ValueError, ModuleNotFoundError) as error:
                self.error(str(error))
        found = super().parse_known_args(args, namespace)
        if found[0].config != path:
            self.error("--config: expected its whole name, and a file after it")
        return found

    def _take(self, path: Path) -> None:
        """Make the file's values the defaults; ValueError names the file, the key and the fault."""
        actions = {
            option[2:]: action
            for action in self._actions
            for option in action.option_strings
            if option.startswith("--") and action.dest not in ("help", "config")
        }
        written = _read(path)
        values = {key.replace("_", "-"): value for key, value in written.items()}
        if len(values) != len(written):
            raise ValueError(f"{path}: expected each option once, got {', '.join(written)}")
        unknown = [key for key in values if key not in actions]
        if unknown:
            raise ValueError(
                f"{path}: expected names of options ({', '.join(sorted(actions))}), got "
                f"{', '.join(map(repr, unknown))}"
            )
        for key, value in values.items():
            action = actions[key]
            default = _converted(action, value, f"{path}, {key!r}")
            action.required = False
            for other in self._actions:
                if other.dest == action.dest:  # such as --reference and --no-reference
                    other.default = default


def _read(path: Path) -> dict[str, Any]:
    toml = _toml()
    if not path.is_file():
        raise FileNotFoundError(f"--config: expected a TOML file, found none at {path}")
    try:
        found: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also what is not UTF-8
        raise ValueError(f"{path}: expected a TOML file, got one with a fault: {error}") from None
    return found


def _toml() -> Any:
    name = "tomllib" if importlib.util.find_spec("tomllib") else "tomli"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "--config: expected Python 3.11 or later, or the package tomli to be installed: "
            "pip install tomli"
        ) from None


def _converted(action: argparse.Action, value: Any, where: str) -> Any:
    """The value as the option would have it from the command line."""
    if action.nargs == 0 or (action.nargs == "?" and isinstance(value, bool)):
        if not isinstance(value, bool):
            raise ValueError(f"{where}: expected true or false, got {value!r}")
        if value:
            return action.const
        return not action.const if isinstance(action.const, bool) else action.default
    if action.nargs == "+":
        several = value if isinstance(value, list) else [value]
        if not several:
            raise ValueError(f"{where}: expected at least one value, got none")
        return [_single(action, each, where) for each in several]
    return _single(action, value, where)


def _single(action: argparse.Action, value: Any, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: expected a number or text, got {value!r}")
    convert: Any = action.type or str
    try:
        found = convert(str(value))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{where}: {error}") from None
    if action.choices is not None and found not in action.choices:
        choices = ", ".join(map(str, action.choices))
        raise ValueError(f"{where}: expected one of {choices}, got {value!r}")
    return found
