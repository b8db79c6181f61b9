# SPDX-License-Identifier: Apache-2.0
"""`files`: looks into the disks of a restore point, or into images, and takes files out of them.

What an entry is in words, and how its figures are written, is in `agent.verbs.entries`. Nothing here understands what a guest
wrote: the parser does, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.figures import format_size, parse_moment, parse_size
from agent.verbs import Surroundings, add_json, add_repository, check_text
from agent.verbs.entries import Problems, document_of, entry_line, name_document, shown, since_1970
from agent.verbs.target import named_repository, named_secret, settings_for
from mover.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from flr.fs.base import About, Attributes, Entry
    from flr.session import Session
    from flr.volumes.find import Entry as Found
    from mover.disk.source import DiskSource

WAIT_SECONDS = 0.2
"""Between two looks at what a walk has found."""


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    files = verbs.add_parser("files", help="look into the disks of a restore point and take files out of them")
    actions = files.add_subparsers(dest="action", metavar="ACTION", required=True)

    volumes = _action(actions, "volumes", "what stands on the disks, and what of it can be opened", run_volumes)
    volumes.add_argument("--all", action="store_true", help="also what is there for others' sake: disks, members")

    listing = _action(actions, "list", "what a folder holds, or what a file is", run_list)
    listing.add_argument("path", metavar="PATH", nargs="?", default="/", help="from the volume's root (default /)")
    listing.add_argument("--details", action="store_true", help="all times, links, extended attributes and streams")

    find = _action(actions, "find", "look for files below a folder", run_find)
    find.add_argument(
        "glob",
        metavar="GLOB",
        nargs="?",
        default="",
        help="as a shell reads it; with a slash it is the path's, from --in on",
    )
    find.add_argument(
        "--regex", metavar="RE", default="", help="a regular expression instead, found anywhere in the name"
    )
    find.add_argument("--ignore-case", action="store_true")
    find.add_argument("--in", dest="within", metavar="PATH", default="/", help="below this folder (default /)")
    find.add_argument("--type", metavar="T", default="", help="file, folder or link")
    find.add_argument("--larger", metavar="SIZE", help="of at least this size: 10MiB")
    find.add_argument("--smaller", metavar="SIZE", help="of at most this size")
    find.add_argument("--newer", metavar="TIME", help="modified since a date, a time, or so long ago: 12h, 7d, 2w")
    find.add_argument("--older", metavar="TIME", help="not modified since")
    find.add_argument("--owner", metavar="ID", type=int, help="of this owner, by number")
    find.add_argument("--null", action="store_true", help="bare paths as they are, each ended by a zero byte")

    cat = _action(actions, "cat", "a file's content, on standard output", run_cat)
    cat.add_argument("path", metavar="PATH")
    cat.add_argument("--stream", metavar="NAME", default="", help="an alternate stream of it (NTFS)")

    get = _action(actions, "get", "take a file out; folders, or several, as a tar", run_get)
    get.add_argument("paths", metavar="PATH", nargs="+")
    get.add_argument("--to", metavar="FILE", required=True, help="a new file; '-' is standard output")
    get.add_argument("--tar", action="store_true", help="a tar also of one file, with its owner, mode and attributes")

    diff = _action(actions, "diff", "what became of a folder since an earlier restore point", run_diff)
    diff.add_argument("path", metavar="PATH", nargs="?", default="/")
    diff.add_argument("--since", metavar="ID", required=True, help="the earlier restore point")
    diff.add_argument("--contents", action="store_true", help="compare bytes, too, where size and times are the same")


def _action(
    actions: argparse._SubParsersAction[Any],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace, Surroundings], int],
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    add_repository(parser)
    parser.add_argument("--point", metavar="ID", help="its id or the beginning of it, see `points`")
    parser.add_argument(
        "--image",
        metavar="PATH",
        action="append",
        default=[],
        help="instead of a point: an image, a VHD or a device; @FILE or env:VARIABLE: where a page blob's URL is; repeatable",
    )
    if name != "volumes":
        parser.add_argument("--volume", metavar="ID", help="see `files volumes`; default: the only one that opens")
    parser.add_argument("--without-journal", action="store_true", help="as it is on the disk, journals not replayed")
    add_json(parser)
    parser.set_defaults(run=run, raw=True)
    return parser


# -- what is looked into


@contextmanager
def _session(arguments: argparse.Namespace, around: Surroundings, point: str | None = None) -> Iterator[Session]:
    """Over a restore point, or over images. `point`: another one than `--point`."""
    from flr.session import Session
    from flr.virtual.open import open_point, open_sources

    for text in (arguments.point, point, arguments.repository, getattr(arguments, "volume", None), *arguments.image):
        check_text(text or "")
    identifier = point or arguments.point
    if bool(identifier) == bool(arguments.image):
        hint = "--point ID looks into a restore point, --image PATH into an image"
        raise UsageError("one restore point, or images: neither or both were named", identifier or "", hint)
    with ExitStack() as stack:
        of = ""
        if arguments.image:
            disks = stack.enter_context(open_sources([disk_source(text, around) for text in arguments.image]))
        else:
            from agent.opening import open_repository, reference

            url, environ = named_repository(arguments.repository, around.environ)
            place = passwords.reference(arguments.password_file, arguments.password_fd, environ)
            opened = stack.enter_context(open_repository(reference(url, place), settings_for(around, environ)))
            found = opened.repository.find_point(identifier)
            of = found.body.resource_name
            disks = stack.enter_context(open_point(opened.repository, found, around.console.say))
        yield stack.enter_context(
            Session(
                disks,
                clock=around.clock,
                note=around.console.say,
                without_journal=arguments.without_journal,
                of=of,
            )
        )


def disk_source(text: str, around: Surroundings) -> DiskSource:
    from mover.disk.source import FileSource

    if "://" in text:
        hint = "everybody on this machine sees arguments: --image @FILE or env:VARIABLE says where the URL is"
        raise UsageError("a disk's URL in an argument", text.partition("?")[0], hint)
    secret = named_secret(text)
    if secret is None:
        return FileSource(os.path.abspath(text))
    from agent.opening import VERB_PATIENCE_SECONDS
    from mover.disk.page_blob import PageBlob
    from mover.disk.page_source import PageBlobSource
    from mover.store.patience import Patience

    patience = Patience(around.clock, seconds=VERB_PATIENCE_SECONDS, cancel=around.cancel)
    return PageBlobSource(PageBlob(passwords.read(secret, around.environ), clock=around.clock, patience=patience))


def _volume(session: Session, named: str | None) -> str:
    """The id of the volume to look into: the one that is named, or the only one that opens."""
    if named is not None:
        return session.volume(named).id
    opening = [entry.id for entry in session.found()[0] if entry.opens]
    if len(opening) == 1:
        return opening[0]
    if opening:
        raise UsageError(
            "there are several volumes", ", ".join(opening), "name one by --volume; `files volumes` tells of them"
        )
    reasons = "; ".join(f"{entry.id}: {entry.why_not}" for entry in session.found()[0] if entry.why_not)
    raise UsageError(
        "nothing on these disks can be opened", reasons or "no file system was found", "see `files volumes`"
    )


def _opened(session: Session, arguments: argparse.Namespace, around: Surroundings) -> str:
    """The volume, opened; what is odd about it is said."""
    volume = _volume(session, arguments.volume)
    opened = session.open(volume)
    for warning in opened.warnings:
        around.console.say(f"{volume}: {warning}")
    return volume


def _path(text: str) -> bytes:
    return os.fsencode(text)


# -- the actions


def run_volumes(arguments: argparse.Namespace, around: Surroundings) -> int:
    from flr.errors import RecoveryError
    from flr.parser.protocol import ParserDied

    rows = []
    with _session(arguments, around) as session:
        found, warnings = session.found()
        for entry in found:
            stop_if_asked(around)
            about = None
            notes = list(entry.warnings)
            why = entry.why_not
            if entry.opens:
                try:
                    opened = session.open(entry.id)
                    about, notes = opened.about, notes + opened.warnings
                except ParserDied:
                    raise
                except RecoveryError as error:
                    why = str(error)
            rows.append((entry, about, why, notes))
    if around.console.json:
        around.console.document(
            {
                "volumes": [
                    {"volume": entry, "file_system": about, "why_not": why, "warnings": notes}
                    for entry, about, why, notes in rows
                ],
                "warnings": warnings,
            }
        )
        return 0
    shown_rows = [row for row in rows if arguments.all or row[1] is not None or row[2] or row[0].kind == "disk"]
    around.console.table(
        ["Volume", "Size", "Used", "Holds", "Label", "Mounted at", "State"],
        (
            (
                entry.id,
                format_size(entry.size),
                format_size(about.used) if about and about.used is not None else "",
                entry.words or entry.type or entry.kind,
                (about.label if about else "") or entry.label or entry.name,
                about.mounted_at if about else "",
                why or _state(entry, about),
            )
            for entry, about, why, _ in shown_rows
        ),
        right=("Size", "Used"),
        whole=("Volume",),
    )
    for entry, _, _, notes in rows:
        for note in notes:
            around.console.say(f"{entry.id}: {note}")
    for warning in warnings:
        around.console.say(warning)
    return 0


def _state(entry: Found, about: About | None) -> str:
    if about is None:
        return f"part of {entry.part_of}" if entry.part_of else ""
    return f"opens; journal {about.journal}" if about.journal else "opens"


def run_list(arguments: argparse.Namespace, around: Surroundings) -> int:
    with _session(arguments, around) as session:
        volume = _opened(session, arguments, around)
        path = _path(arguments.path)
        found = session.find(volume, path, follow=path.endswith(b"/"))
        problems = Problems(around)
        if not found.is_directory:
            name = path.rstrip(b"/").rpartition(b"/")[2]
            entries = [_entry_of(name, found)]
        else:
            entries = sorted(session.folder(volume, found.node), key=lambda entry: entry.name)
        documents = []
        for entry in entries:
            stop_if_asked(around)
            if around.console.json:
                documents.append(document_of(session, volume, entry, arguments.details, problems))
            else:
                for line in entry_line(session, volume, entry, arguments.details, problems):
                    around.console.line(line)
            if entry.problem:
                problems.add(entry.name, entry.problem)
        problems.odd(session.news(volume))
        if around.console.json:
            around.console.document(
                {"volume": volume, "path": name_document(path), "entries": documents, **problems.told()}
            )
        return problems.exit_code()


def _entry_of(name: bytes, attributes: Attributes) -> Entry:
    from flr.fs.base import Entry

    return Entry(name, attributes.number, attributes)


def stop_if_asked(around: Surroundings) -> None:
    """Cancelled after Ctrl-C."""
    if around.cancel.is_set():
        raise Cancelled("interrupted", hint="nothing was changed; issue it again")


def run_find(arguments: argparse.Namespace, around: Surroundings) -> int:
    from flr.catalogue import Catalogue, Query
    from flr.walk import everything

    now = datetime.fromtimestamp(around.clock.wall(), UTC)
    if arguments.type not in ("", "file", "folder", "link"):
        raise UsageError("not a type", arguments.type, "file, folder or link")
    query = Query(
        glob=_path(arguments.glob),
        regex=_path(arguments.regex),
        ignore_case=arguments.ignore_case,
        least=parse_size(arguments.larger) if arguments.larger else None,
        most=parse_size(arguments.smaller) if arguments.smaller else None,
        since=since_1970(parse_moment(arguments.newer, now)) if arguments.newer else None,
        until=since_1970(parse_moment(arguments.older, now)) if arguments.older else None,
        kind=arguments.type,
        owner=arguments.owner,
    )
    with _session(arguments, around) as session, tempfile.TemporaryDirectory(prefix="data-mover-") as scratch:
        volume = _opened(session, arguments, around)
        start = session.find(volume, _path(arguments.within), follow=True)
        if not start.is_directory:
            raise UsageError("not a folder", arguments.within, "--in names where to look")
        problems = Problems(around)
        with Catalogue(Path(scratch) / "catalogue.sqlite", start.number) as catalogue:
            prefix = b"/" + _path(arguments.within).strip(b"/")
            search = catalogue.search(query)  # a pattern that is none is said before anything is read
            done = threading.Event()
            trouble: list[BaseException] = []

            def fill() -> None:
                try:
                    for folders, table in everything(
                        session, volume, start, prefix, lambda path, e: problems.add(path, str(e))
                    ):
                        catalogue.add(folders, table)
                        for k, text in table.problems.items():
                            folder = folders if isinstance(folders, int) else folders[k]
                            problems.add(catalogue.path(folder, table.names[k]) or table.names[k], text)
                        if around.cancel.is_set():
                            break
                except BaseException as error:
                    trouble.append(error)
                finally:
                    catalogue.complete = True
                    done.set()

            walker = threading.Thread(target=fill, name="flr-walk")
            walker.start()
            found = []
            after = 0
            try:
                while True:
                    complete = done.is_set()
                    for identifier, match in search:
                        stop_if_asked(around)
                        after = identifier
                        if match is None:
                            continue
                        path = (prefix if prefix != b"/" else b"") + match.path
                        if around.console.json:
                            found.append(_match_document(path, match))
                        elif arguments.null:
                            sys.stdout.buffer.write(path + b"\0")
                        else:
                            around.console.line(shown(path))
                    if complete:
                        break
                    around.clock.wait(done, WAIT_SECONDS)
                    search = catalogue.search(query, after)
            finally:
                if sys.exc_info()[0] is not None:
                    around.cancel.set()
                walker.join()
            if trouble:
                raise trouble[0]
            stop_if_asked(around)
            problems.odd(session.news(volume))
            if around.console.json:
                around.console.document(
                    {"volume": volume, "found": found, "seen": catalogue.count(), **problems.told()}
                )
            elif not arguments.null:
                count = catalogue.count()
                around.console.say("1 entry was looked at" if count == 1 else f"{count} entries were looked at")
        return problems.exit_code()


def _match_document(path: bytes, match: Any) -> dict[str, Any]:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return {
        **name_document(path),
        "type": kinds.get(stat.S_IFMT(match.mode), "special"),
        "size": match.size,
        "mode": stat.S_IMODE(match.mode),
        "owner": match.owner,
        "group": match.group,
        "modified_ns": match.modified,
        "node": match.node,
    }


def run_cat(arguments: argparse.Namespace, around: Surroundings) -> int:
    from flr.blocks import Hole
    from flr.errors import TooMuch, WrongKind
    from flr.fs.base import Flag

    if arguments.json:
        raise UsageError(
            "a file's content is no JSON", "--json", "leave it away; `files list --json` tells of the file"
        )
    with _session(arguments, around) as session:
        volume = _opened(session, arguments, around)
        found = session.find(volume, _path(arguments.path), follow=True)
        stream = _path(arguments.stream)
        size = session.stream_size(volume, found.node, stream) if stream else found.size
        if not stream and not stat.S_ISREG(found.mode):
            raise WrongKind("not a file", arguments.path)
        if found.flags & Flag.SUSPICIOUS:
            hint = "`files get` writes it with its holes, which take no space"
            raise TooMuch("a file says that it is larger than its volume", f"{size} bytes", hint)
        out = sys.stdout.buffer
        for piece in session.content(volume, found.node, size, 0, stream):
            stop_if_asked(around)
            out.write(bytes(piece.length) if isinstance(piece, Hole) else piece)
        out.flush()
        problems = Problems(around)
        problems.odd(session.news(volume))
        return problems.exit_code()


def run_get(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.verbs.taking import take

    return take(arguments, around, _session, _opened)


def run_diff(arguments: argparse.Namespace, around: Surroundings) -> int:
    from flr.difference import Side, difference

    if arguments.image:
        raise UsageError("images have no restore points", arguments.image[0], "--point NEW --since OLD")
    problems = Problems(around)
    path = _path(arguments.path)
    changes: list[dict[str, Any]] = []
    counts = {"added": 0, "removed": 0, "changed": 0}
    with _session(arguments, around, arguments.since) as old, _session(arguments, around) as new:
        if old.of != new.of:
            raise UsageError(
                "restore points of two resources", f"{old.of} and {new.of}", "compare points of one resource"
            )
        sides = []
        for session in (old, new):
            volume = _opened(session, arguments, around)
            folder = session.find(volume, path, follow=True)
            if not folder.is_directory:
                raise UsageError("not a folder", arguments.path, "diff compares folders")
            sides.append(Side(session, volume, folder))
        prefix = b"/" + path.strip(b"/")
        for change in difference(
            sides[0],
            sides[1],
            prefix,
            lambda where, e: problems.add(where, str(e)),
            contents=arguments.contents,
            step=lambda: stop_if_asked(around),
        ):
            counts[change.what] += 1
            if around.console.json:
                changes.append({**name_document(change.path), "what": change.what, "how": change.how})
            else:
                sign = {"added": "+", "removed": "-", "changed": "~"}[change.what]
                slash = "/" if (change.new or change.old) and (change.new or change.old).is_directory else ""  # type: ignore[union-attr]
                how = f"  ({', '.join(change.how)})" if change.how else ""
                around.console.line(f"{sign} {shown(change.path)}{slash}{how}")
        for side in sides:
            problems.odd(side.session.news(side.volume))
    if around.console.json:
        around.console.document({"changes": changes, **counts, **problems.told()})
    else:
        around.console.say(f"{counts['added']} added, {counts['removed']} removed, {counts['changed']} changed")
    return problems.exit_code()
