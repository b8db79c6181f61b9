# SPDX-License-Identifier: Apache-2.0
"""What a telling of an image is worth beside its truth: names, contents, attributes, counted."""

from __future__ import annotations

import stat
from collections.abc import Set

import msgspec

from tests.flr.corpus.truth import Fact, Facts

ATTRIBUTES = tuple(field for field in Fact.__struct_fields__ if field not in ("path", "content", "problem"))


class Verdict(msgspec.Struct):
    """Entries that are `listed` as they should be, `missing`, `invented`; regular files of which the `contents` are right, of all
    `files` that are known; attributes that are wrong, by the number of entries."""

    listed: int
    missing: int
    invented: int
    contents: int
    files: int
    wrong: dict[str, int] = {}
    stopped: str = ""

    @property
    def equal(self) -> bool:
        return not (self.missing or self.invented or self.wrong or self.stopped or self.contents < self.files)

    @property
    def words(self) -> str:
        if self.equal:
            return "equal"
        said = [self.stopped] if self.stopped else []
        if self.missing or self.invented:
            counts = ((self.listed, "listed"), (self.missing, "missing"), (self.invented, "invented"))
            said.append(", ".join(f"{count} {word}" for count, word in counts if count or word == "listed"))
        if self.contents < self.files:
            said.append(f"contents {self.contents} of {self.files}")
        if self.wrong:
            said.append("wrong: " + ", ".join(f"{name} {count}" for name, count in self.wrong.items()))
        return "; ".join(said)


def verdict(
    truth: Facts, told: Facts, named: Set[bytes], untold: Set[str], *, folder_sizes: bool = True, stopped: str = ""
) -> Verdict:
    """`named`: entries of which no more than the name is known. `untold`: attributes that one of the two does not tell; of the mode
    the type remains. `folder_sizes`: whether the size of a folder counts, of which libraries have their own ideas."""
    both = truth.keys() & told.keys()
    wrong: dict[str, int] = {}
    for path in both - named:
        for name in ATTRIBUTES:
            left, right = getattr(truth[path], name), getattr(told[path], name)
            if name == "mode" and name in untold:
                name, left, right = "type", stat.S_IFMT(left), stat.S_IFMT(right)
            if name == "size" and not folder_sizes and stat.S_ISDIR(truth[path].mode):
                continue
            if left != right and name not in untold:
                wrong[name] = wrong.get(name, 0) + 1
    files = {path: fact.content for path, fact in truth.items() if fact.content and path not in named}
    right = sum(path in told and told[path].content == content for path, content in files.items())
    order = sorted(wrong.items(), key=lambda item: ("type", *ATTRIBUTES).index(item[0]))
    return Verdict(len(both), len(truth) - len(both), len(told) - len(both), right, len(files), dict(order), stopped)
