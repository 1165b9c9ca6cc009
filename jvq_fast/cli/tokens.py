"""Where the command line takes the account's token from."""

import argparse
import os
import sys

from jvq_fast.cli import secrets
from jvq_fast.cli.complaint import UsageError

__all__ = ["VARIABLE", "add_arguments", "read"]

VARIABLE = "JVQ_FAST_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a token."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--token-file", metavar="FILE", help="read the token from a file, or from standard input where it is -"
    )
    group.add_argument(
        "--token",
        help="the token itself; every user of this machine can then read it in the list of processes and it stays in "
        f"the shell's history, so prefer --token-file or the variable {VARIABLE}",
    )


def read(options: argparse.Namespace) -> str:
    """The token from an option, else from the variable. UsageError, which never shows a token, where there is none."""
    if options.token is not None:
        secrets.warn("--token", f"--token-file or {VARIABLE}")
        return _checked(options.token, "--token")
    if options.token_file is not None:
        return _checked(_from_file(options.token_file), f"the token file {options.token_file}")
    if os.environ.get(VARIABLE):
        return _checked(os.environ[VARIABLE], f"the variable {VARIABLE}")
    raise UsageError(
        f"no token. Name a file that holds it with --token-file FILE, or set {VARIABLE}; "
        "the simulator takes any 32 hexadecimal digits, and `jvq-fast demo` needs no token at all"
    )


def _from_file(name: str) -> str:
    if name == "-":
        return sys.stdin.readline()
    return secrets.read_file(name, "token")


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{where} holds no token: a token is one word of letters and digits")
    return token
