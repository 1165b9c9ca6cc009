"""Where the command line takes a trading account and its password from."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable

from jvq_fast.cli import secrets
from jvq_fast.cli.complaint import UsageError

__all__ = ["add_arguments", "read_account", "read_password"]

_VARIABLES = {"account": "JVQ_FAST_ACCOUNT", "password": "JVQ_FAST_PASSWORD"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an account and its password."""
    for name, variable in _VARIABLES.items():
        group = parser.add_mutually_exclusive_group()
        group.add_argument(f"--{name}-file", metavar="FILE", help=f"read the {name} from a file")
        group.add_argument(f"--{name}", help=f"the {name} itself, for all to see; better: --{name}-file or {variable}")


def read_account(options: argparse.Namespace) -> str:
    """The account's 12 digits. UsageError, which never shows it, where there is none."""
    account = _read(options, "account", input)
    if not (len(account) == 12 and account.isascii() and account.isdigit()):
        raise UsageError("that is no account: it has 12 digits")
    return account


def read_password(options: argparse.Namespace) -> str:
    """The password; a terminal is asked for it. UsageError where there is none."""
    return _read(options, "password", getpass.getpass)


def _read(options: argparse.Namespace, name: str, ask: Callable[[str], str]) -> str:
    variable = _VARIABLES[name]
    given, file = getattr(options, name), getattr(options, f"{name}_file")
    if given is not None:
        secrets.warn(f"--{name}", f"--{name}-file or {variable}")
        text = given
    elif file is not None:
        text = secrets.read_file(file, name)
    elif os.environ.get(variable):
        text = os.environ[variable]
    elif sys.stdin is not None and sys.stdin.isatty():
        text = ask(f"{name}: ")
    else:
        raise UsageError(f"no {name}. Name a file that holds it with --{name}-file FILE, or set {variable}")
    text = text.strip("\r\n")
    if not text:
        raise UsageError(f"the {name} is empty")
    return str(text)
