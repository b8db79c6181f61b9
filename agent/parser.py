# SPDX-License-Identifier: Apache-2.0
"""An argument parser whose complaints are UsageErrors (what, value, hint) and never repeat a value that may be a secret."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from mover.errors import UsageError

_SECRET = re.compile(r"password|secret|sas|key|token", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """No abbreviations: `--password` shall not pass for `--password-file`, and scripts shall not break by a new option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**(options | {"allow_abbrev": False}))

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (.*)", message, re.DOTALL)
        if unknown:
            names = [word.split("=")[0] for word in unknown[1].split() if word.startswith("-")]
            value = " ".join(names) or "a word that no option takes"
            hint = f"`{self.prog} --help` lists the options"
            if any(_SECRET.search(name) for name in names):
                hint = "no secret is an argument: --password-file, --password-fd, DATA_MOVER_PASSWORD_FILE, DATA_MOVER_PASSWORD"
            raise UsageError("an argument that is not known", value, hint)
        raise UsageError("the command line is not complete or not right", message, f"`{self.prog} --help` shows how")
