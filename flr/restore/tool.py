# SPDX-License-Identifier: Apache-2.0
"""The restore tool: one file that runs on the machine whose files were lost, and writes what the worker sends.

Python 3.6 and its standard library, nothing else: it is sent to machines of any age. Two things in here are the worker's too: the
rules (`decide`, `kept_name`) and `Run`, which carries out steps on anything that is a `Files`; over SFTP the worker runs it itself.
Not here: what is sent, and in which order (`flr.restore.restoration`).

It never follows a link below "/": each part of a path is opened within the one before, and a link there is refused. A file is
written beside its place, checked by SHA-256, given its owner, mode, attributes and times, and renamed. Set-user-id and set-group-id
bits and file capabilities come back only when that was asked for.

Names are UTF-8; bytes that are none stand as U+DC80 to U+DCFF, as Python's `surrogateescape` does. What goes between worker and
tool is described in docs/restore-tool.md.
"""

import base64
import binascii
import errno
import hashlib
import hmac
import http.client
import json
import os
import stat
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree

VERSION = 1
LONGEST_NAME, LONGEST_TARGET = 255, 4095
PIECE = 1 << 20
MOST_REPLY, LONGEST_TEXT = 20 * 1024, 1000
SERVICE_VERSION = "2020-10-02"
BUSY_FOR = 60.0
"""Seconds after a request for which the next one is expected soon."""
HERE_SECONDS = 20.0
"""Between two words that it is there."""
PATIENCE_SECONDS = 300.0
"""For which a service may fail."""
HIDDEN_SECONDS = 30
UNSETTLED = 64 << 20
"""Bytes of a file that the system may hold back: its end would wait for all of them."""
PRIVILEGES = stat.S_ISUID | stat.S_ISGID
RIGHTS = "security.capability"
LISTS = ("system.posix_acl_access", "system.posix_acl_default")
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class Refused(Exception):
    """One entry cannot be restored: its text says why, for people."""


class Ended(Exception):
    """The session is over: its queue is gone, or its time."""


class Unreached(Ended):
    """Nobody knows whether it is: the storage account does not answer."""


# -- rules ----------------------------------------------------------------------------------------------------------


def decide(rule, kind, modified, there, there_modified):
    """What becomes of an entry. `rule`: keep, overwrite, skip, newer. `there`: what stands in its place, "" for nothing.

    make: nothing is in its way. merge: a folder is there already. beside: under another name. replace. skip. refuse: what stands
    there is of another kind and is not replaced.
    """
    if not there:
        return "make"
    if kind == "folder" and there == "folder":
        return "merge"
    if rule == "keep":
        return "beside"
    if rule == "skip":
        return "skip"
    if kind == "folder" or there not in ("file", "link"):
        return "refuse"
    if rule == "newer" and modified <= there_modified:
        return "skip"
    return "replace"


def kept_name(name, suffix, attempt=0):
    """The name that a restored entry gets beside what stands in its place; `name` is cut if the whole would be too long."""
    tail = (suffix if not attempt else "%s_%d" % (suffix, attempt + 1)).encode()
    whole = raw(name)
    head = whole[: LONGEST_NAME - len(tail)]
    if len(head) < len(whole):
        while head and whole[len(head)] & 0xC0 == 0x80 and len(whole) - len(head) < len(tail) + 4:
            head = head[:-1]  # the cut went through a character
    return (head + tail).decode("utf-8", "surrogateescape")


def raw(name):
    """A name's bytes, whatever locale this runs in."""
    return name.encode("utf-8", "surrogateescape")


# -- files of this machine ------------------------------------------------------------------------------------------


class Local:
    """This machine's files. A place is (the folder's descriptor, a name in it)."""

    resolution = 1  # nanoseconds by which times are told

    def open_root(self):
        return os.open("/", os.O_RDONLY | os.O_DIRECTORY)

    def open_folder(self, folder, name):
        """Within `folder`. Refused for what is none, and for a link."""
        try:
            return os.open(raw(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                try:
                    target = os.readlink(raw(name), dir_fd=folder).decode("utf-8", "surrogateescape")
                except OSError:
                    target = ""
                raise Refused(in_the_way(name, target))
            raise

    def close_folder(self, folder):
        os.close(folder)

    def look(self, folder, name):
        """(kind, size, modified in ns) of what stands there; kind "" for nothing, "other" for what is restored by nobody."""
        try:
            found = os.stat(raw(name), dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return "", 0, 0
            raise
        return KINDS.get(stat.S_IFMT(found.st_mode), "other"), found.st_size, found.st_mtime_ns

    def names(self, folder):
        return [os.fsencode(name).decode("utf-8", "surrogateescape") for name in os.listdir(folder)]

    def free(self, folder):
        """Bytes that may still be written there."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def make_folder(self, folder, name):
        os.mkdir(raw(name), 0o700, dir_fd=folder)

    def make_link(self, folder, name, target):
        os.symlink(raw(target), raw(name), dir_fd=folder)

    def create(self, folder, name):
        """A new file to write to."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        return os.open(raw(name), flags, 0o600, dir_fd=folder)

    def write(self, file, data, offset):
        view = memoryview(data)
        while len(view):
            done = os.pwrite(file, view, offset)
            view = view[done:]
            offset += done

    def resize(self, file, size, written):
        """`written`: how long what was written makes it."""
        if written != size:
            os.ftruncate(file, size)

    def settle(self, file):
        """What was written so far stands on the disk."""
        os.fdatasync(file)

    def sync(self, file):
        """All of it stands on the disk after this."""
        os.fsync(file)

    def close(self, file):
        os.close(file)

    def dress(self, folder, name, kind, attributes, file=None):
        """Owner, mode, extended attributes and times; a list of what could not be set. `file`: if it is open."""
        problems = []

        def attempt(what, call):
            try:
                call()
            except (OSError, OverflowError, ValueError) as error:
                problems.append("%s: %s" % (what, reason(error)))

        if kind == "link":
            problems += ["%s: not set on a link" % printable(key) for key in attributes.get("xattrs", {})]
            # Not by its name, which somebody may have given to another file meanwhile.
            handle = os.open(raw(name), os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            try:
                if not stat.S_ISLNK(os.fstat(handle).st_mode):
                    raise Refused("something else was put in its place")
                place = "/proc/self/fd/%d" % handle
                if "uid" in attributes:
                    attempt("owner", lambda: os.chown(place, attributes["uid"], attributes["gid"]))
                if "mtime" in attributes:
                    attempt("times", lambda: os.utime(place, ns=times(attributes)))
            finally:
                os.close(handle)
            return problems
        handle = self.open_folder(folder, name) if file is None else file
        try:
            if "uid" in attributes:
                attempt("owner", lambda: os.chown(handle, attributes["uid"], attributes["gid"]))
            for key, value in sorted(attributes.get("xattrs", {}).items()):

                def put(key=key, value=value):
                    os.setxattr(handle, raw(key), base64.b64decode(value))

                attempt(printable(key), put)
            for key in LISTS:  # those that the folder above gave it: they would let others in
                if key not in attributes.get("xattrs", {}):
                    try:
                        os.removexattr(handle, key)
                    except OSError:
                        pass  # it has none, or there are none here
            if "mode" in attributes:  # behind the owner and the lists, which change it
                attempt("mode", lambda: os.chmod(handle, attributes["mode"]))
            if "mtime" in attributes:
                attempt("times", lambda: os.utime(handle, ns=times(attributes)))
        finally:
            if file is None:
                os.close(handle)
        return problems

    def put(self, folder, name, final, replace):
        """`name` becomes `final`. FileExistsError where something stands there and shall not be replaced."""
        old, new = raw(name), raw(final)
        if not replace:
            try:
                os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                os.unlink(old, dir_fd=folder)
                return
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if self.look(folder, final)[0]:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, folder, name):
        try:
            os.unlink(raw(name), dir_fd=folder)
        except FileNotFoundError:
            pass


def in_the_way(name, target):
    """Of what stands where a folder is wanted: a link to `target`, or, without one, something else."""
    if not target:
        return "%s is not a folder" % printable(name)
    return "a link stands in the way, %s -> %s: name the folder that it leads to" % (printable(name), printable(target))


def times(attributes):
    """(accessed, modified) in nanoseconds."""
    return attributes.get("atime", attributes["mtime"]), attributes["mtime"]


# -- steps ----------------------------------------------------------------------------------------------------------


class Folder:
    """A folder of a run. `problem`: why nothing can be put into it; `parent` and `name`: where it really is; `attributes`: what
    it gets at the end, None for nothing."""

    def __init__(self, parent, name, problem="", attributes=None, skipped=False):
        self.parent = parent
        self.name = name
        self.problem = problem
        self.skipped = skipped
        self.attributes = attributes


class Writing:
    """A file that is being written."""

    def __init__(self, parent, name, temporary, file, size, attributes):
        self.parent = parent
        self.name = name
        self.temporary = temporary
        self.file = file
        self.size = size
        self.attributes = attributes
        self.at = 0
        self.unsettled = 0
        self.digest = hashlib.sha256()


class Run:
    """Steps of one restoration; those of different files may be carried out by several threads at once, where a folder's handle
    is its path. `order`: {"run": its id, "rule", "suffix" of kept names, "privileges": whether files' set-user-id bits and
    capabilities come back, "old": ids of runs that may have left half files, which are taken away where this one comes by}.
    `tell(number, state, text, name)`: how an entry ended: done, warning, skipped or failed; `name` is what it is called now where
    that is another name. Every entry is told of once.

    A step is a list whose first word says what it is:

        ["folder", number, parent, name, attributes, above, ours]
            `parent`: a folder's number, 0 for "/". `above`: only what is in it is restored. Then it stays as it is where it stands
            already, and is told of only if it fails. `ours`: an earlier run made it, so it gets its attributes at the end. That one
            was made is told at once, by the state "made"; how it ended comes at the end.
        ["link", number, parent, name, target, attributes]
        ["open", number, parent, name, size, attributes]
        ["data", number, offset, length, where in the pack]
        ["close", number, SHA-256 of the whole file, holes as zeros]
        ["drop", number, why]
            The file cannot be sent whole: what there is of it goes.
    """

    OPEN = 32  # folders whose descriptors are kept

    def __init__(self, files, order, tell):
        self.files = files
        self.id = order["run"]
        self.rule = order["rule"]
        self.suffix = order["suffix"]
        self.privileges = order["privileges"]
        self.tell = tell
        self.folders = {}
        self._old = tuple(".flr-%s-" % run for run in order.get("old", []))
        self._handles = {}
        self._writing = {}
        self._unheard = {}
        self._serial = 0
        self._lock = threading.RLock()

    def step(self, step, read):
        """`read(where, length)` gives bytes of the pack."""
        what, number = step[0], step[1]
        try:
            if what == "folder":
                self._folder(number, step[2], step[3], step[4], step[5], step[6])
            elif what == "link":
                self._link(number, step[2], step[3], step[4], step[5])
            elif what == "open":
                self._open(number, step[2], step[3], step[4], step[5])
            elif what == "data":
                self._data(number, step[2], step[3], lambda: read(step[4], step[3]))
            elif what == "close":
                self._close(number, step[2])
            elif what == "drop":
                self._failed(number, step[2])
            else:
                raise Refused("a step that this tool does not know: %s" % printable(str(what)))
        except Refused as error:
            self._failed(number, str(error))
        except (OSError, ValueError, OverflowError) as error:
            self._failed(number, reason(error))

    def _failed(self, number, text):
        self._discard(number)
        self.tell(number, "failed", text, "")

    def _discard(self, number):
        writing = self._writing.pop(number, None)
        if writing is not None:
            try:
                self.files.close(writing.file)
            except OSError:
                pass
            try:
                self.files.remove(self._handle(writing.parent), writing.temporary)
            except (OSError, Refused):
                pass

    # folders

    def _handle(self, number):
        """The folder of that number, open. Refused."""
        with self._lock:
            return self._opened(number)

    def _opened(self, number):
        chain = []  # from it up to what is open
        while number not in self._handles:
            chain.append(number)
            if number == 0:
                break
            folder = self.folders.get(number)
            if folder is None:
                raise Refused("its folder was not made")
            if folder.problem:
                raise Refused(folder.problem)
            number = folder.parent
        handle = self._handles.get(number)
        for one in reversed(chain):
            if one == 0:
                opened = self.files.open_root()
            else:
                opened = self.files.open_folder(handle, self.folders[one].name)
            if self._old:
                self._clean(opened)
            handle = self._handles[one] = opened
            while len(self._handles) > self.OPEN:
                oldest = next(key for key in self._handles if key != one)
                self.files.close_folder(self._handles.pop(oldest))
        return handle

    def _clean(self, handle):
        """Takes away what a run that nobody ended left."""
        try:
            for name in self.files.names(handle):
                if name.startswith(self._old) and name.endswith(".tmp"):
                    self.files.remove(handle, name)
        except OSError:
            pass

    def _choice(self, handle, kind, name, modified):
        """(what becomes of it by the rule, what stands there) at this moment."""
        there, _, there_modified = self.files.look(handle, name)
        modified = modified // self.files.resolution * self.files.resolution
        return decide(self.rule, kind, modified, there, there_modified), there

    def _folder(self, number, parent, name, attributes, above, ours):
        try:
            if self._skipped(parent):
                self.folders[number] = Folder(parent, name, "its folder was skipped", skipped=True)
                if not above:
                    self.tell(number, "skipped", "its folder was skipped", "")
                return
            check_name(name)
            handle = self._handle(parent)
            choice, there = self._choice(handle, "folder", name, 0)
            if above and there:
                choice = "merge"
            final = name
            if choice == "skip":
                text = "%s stands there" % ARTICLES[there]
                self.folders[number] = Folder(parent, name, text, skipped=True)
                self.tell(number, "skipped", text, "")
                return
            if choice == "refuse":
                raise Refused("%s stands where the folder belongs" % ARTICLES[there])
            if choice == "beside":
                final = self._free_name(handle, name)
            made = choice != "merge"
            own = attributes if made or ours or (self.rule == "overwrite" and not above) else None
            if made:
                self.files.make_folder(handle, final)
                # Should this be killed now, the folder is of use to whoever it belongs to.
                early = {key: value for key, value in attributes.items() if key in ("uid", "gid")}
                early["mode"] = attributes.get("mode", 0) | stat.S_IRWXU
                self.files.dress(handle, final, "folder", early)
                self.tell(number, "made", "", final if final != name else "")
            self.folders[number] = Folder(parent, final, attributes=own)
            if not made:
                self._handle(number)  # a link, or what only looks like a folder, is found here
            if above:
                return
            if own is None:
                self.tell(number, "done", "it was there", "")
            else:
                self._unheard[number] = final if final != name else ""
        except (Refused, OSError, ValueError) as error:
            text = str(error) if isinstance(error, Refused) else reason(error)
            self.folders[number] = Folder(parent, name, "its folder cannot be used: %s" % text)
            self.tell(number, "failed", text, "")

    def _skipped(self, parent):
        folder = self.folders.get(parent)
        return folder is not None and folder.skipped

    def _free_name(self, handle, name):
        for attempt in range(100):
            final = kept_name(name, self.suffix, attempt)
            if not self.files.look(handle, final)[0]:
                return final
        raise Refused("a hundred restored copies stand there already")

    # files and links

    def _place(self, number, kind, parent, name, attributes):
        """The folder that it goes into; None when it is skipped, which is told."""
        if self._skipped(parent):
            self.tell(number, "skipped", "its folder was skipped", "")
            return None
        check_name(name)
        handle = self._handle(parent)
        choice, there = self._choice(handle, kind, name, attributes.get("mtime", 0))
        if choice == "skip":
            self.tell(number, "skipped", self._why_skipped(there), "")
            return None
        if choice == "refuse":
            raise Refused(self._why_refused(there, kind))
        return handle

    def _why_skipped(self, there):
        newer = self.rule == "newer" and there in ("file", "link")
        return "what stands there is not older" if newer else "%s stands there" % ARTICLES[there]

    @staticmethod
    def _why_refused(there, kind):
        return "%s stands there and is not replaced by a %s" % (ARTICLES[there], kind)

    def _temporary(self):
        with self._lock:
            self._serial += 1
            return ".flr-%s-%d.tmp" % (self.id, self._serial)

    def _allowed(self, attributes):
        """A file's attributes without what was not asked for; and what that was."""
        clean = dict(attributes)
        left = []
        if not self.privileges and clean.get("mode", 0) & PRIVILEGES:
            clean["mode"] &= ~PRIVILEGES
            left.append("set-user-id and set-group-id bits were left out")
        if not self.privileges and RIGHTS in clean.get("xattrs", {}):
            clean["xattrs"] = {key: value for key, value in clean["xattrs"].items() if key != RIGHTS}
            left.append("file capabilities were left out")
        return clean, left

    def _link(self, number, parent, name, target, attributes):
        handle = self._place(number, "link", parent, name, attributes)
        if handle is None:
            return
        if not target or "\0" in target or len(raw(target)) > LONGEST_TARGET:
            raise Refused("a link that leads to nothing that can be: its target has %d bytes" % len(raw(target)))
        temporary = self._temporary()
        self.files.make_link(handle, temporary, target)
        placed = False
        try:
            problems = self.files.dress(handle, temporary, "link", attributes)
            placed = self._put(number, handle, temporary, "link", name, attributes, problems)
        finally:
            if not placed:
                self.files.remove(handle, temporary)

    def _open(self, number, parent, name, size, attributes):
        handle = self._place(number, "file", parent, name, attributes)
        if handle is not None:
            temporary = self._temporary()
            file = self.files.create(handle, temporary)
            self._writing[number] = Writing(parent, name, temporary, file, size, attributes)

    def _data(self, number, offset, length, read):
        writing = self._writing.get(number)
        if writing is None:
            return  # skipped, or failed before
        if offset < writing.at or offset + length > writing.size:
            raise Refused("its data came out of order")
        self._zeros(writing, offset)
        data = read()
        if len(data) != length:
            raise Refused("its data came short")
        self.files.write(writing.file, data, offset)
        writing.digest.update(data)
        writing.at = offset + length
        writing.unsettled += length
        if writing.unsettled >= UNSETTLED:
            self.files.settle(writing.file)
            writing.unsettled = 0

    def _zeros(self, writing, until):
        gap = until - writing.at
        zeros = bytes(min(PIECE, gap)) if gap > 0 else b""
        while gap > 0:
            writing.digest.update(zeros[:gap])
            gap -= min(gap, len(zeros))
        writing.at = until

    def _close(self, number, digest):
        writing = self._writing.get(number)
        if writing is None:
            return
        written = writing.at
        self._zeros(writing, writing.size)
        if not hmac.compare_digest(writing.digest.hexdigest(), digest):
            raise Refused("what arrived is not what was sent: its SHA-256 is %s" % writing.digest.hexdigest())
        handle = self._handle(writing.parent)
        attributes, problems = self._allowed(writing.attributes)
        self.files.resize(writing.file, writing.size, written)
        problems += self.files.dress(handle, writing.temporary, "file", attributes, writing.file)
        self.files.sync(writing.file)
        del self._writing[number]
        placed = False
        try:
            self.files.close(writing.file)
            placed = self._put(number, handle, writing.temporary, "file", writing.name, attributes, problems)
        finally:
            if not placed:
                self.files.remove(handle, writing.temporary)

    def _put(self, number, handle, temporary, kind, name, attributes, problems):
        """Under its name, by the rule and by what stands there now, which may have come since; and tells. Whether it has one."""
        for _ in range(5):
            choice, there = self._choice(handle, kind, name, attributes.get("mtime", 0))
            if choice == "skip":
                self.tell(number, "skipped", self._why_skipped(there), "")
                return False
            if choice == "refuse":
                raise Refused(self._why_refused(there, kind))
            final = self._free_name(handle, name) if choice == "beside" else name
            try:
                self.files.put(handle, temporary, final, choice == "replace")
            except FileExistsError:
                continue
            state = "warning" if problems else "done"
            self.tell(number, state, "; ".join(problems), final if final != name else "")
            return True
        raise Refused("something else is made there, again and again")

    # the end

    def end(self):
        """Give folders their attributes, the deepest first, and let go of all that is open."""
        for number in list(self._writing):
            self._failed(number, "it was stopped")
        for number in reversed(list(self.folders)):
            folder = self.folders[number]
            if folder.problem or folder.attributes is None:
                continue
            try:
                problems = self.files.dress(self._handle(folder.parent), folder.name, "folder", folder.attributes)
            except (Refused, OSError) as error:
                problems = [str(error) if isinstance(error, Refused) else reason(error)]
            name = self._unheard.pop(number, None)
            if name is not None:
                self.tell(number, "warning" if problems else "done", "; ".join(problems), name)
        for handle in self._handles.values():
            self.files.close_folder(handle)
        self._handles.clear()
        self.folders.clear()


ARTICLES = {
    "file": "a file",
    "folder": "a folder",
    "link": "a link",
    "other": "a device, pipe or socket",
    "": "nothing",
}


def check_name(name):
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Refused("a name that leads elsewhere: %s" % printable(name))


def look(files, paths):
    """What stands at each of these paths: (kind, size, modified, ""), or ("blocked", 0, 0, why)."""
    found = []
    trail = [("", files.open_root())]
    try:
        for path in paths:
            parts = [part for part in path.split("/") if part]
            try:
                for part in parts:
                    check_name(part)
                common = 0
                while common < len(parts) - 1 and common + 1 < len(trail) and trail[common + 1][0] == parts[common]:
                    common += 1
                while len(trail) > common + 1:
                    files.close_folder(trail.pop()[1])
                missing = False
                for part in parts[common:-1]:
                    if not files.look(trail[-1][1], part)[0]:
                        missing = True
                        break
                    trail.append((part, files.open_folder(trail[-1][1], part)))
                if missing:
                    found.append(("", 0, 0, ""))
                elif not parts:
                    found.append(("folder", 0, 0, ""))
                else:
                    found.append((*files.look(trail[-1][1], parts[-1]), ""))
            except Refused as error:
                found.append(("blocked", 0, 0, str(error)))
            except OSError as error:
                found.append(("blocked", 0, 0, reason(error)))
        return found
    finally:
        for _, handle in trail:
            files.close_folder(handle)


def free(files, path):
    """Bytes that may still be written below `path`, or below what there is of it."""
    handle = files.open_root()
    try:
        for part in [part for part in path.split("/") if part]:
            try:
                deeper = files.open_folder(handle, part)
            except (Refused, OSError):
                break
            files.close_folder(handle)
            handle = deeper
        return files.free(handle)
    finally:
        files.close_folder(handle)


def printable(text):
    return "".join(c if c.isprintable() and not 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text)


def reason(error):
    return getattr(error, "strerror", None) or type(error).__name__


# -- between worker and tool ------------------------------------------------------------------------------------------


def derived(key, direction):
    """The key of one direction: hello, requests, replies."""
    return hmac.new(key, direction.encode(), hashlib.sha256).digest()


def sealed(key, number, tool, body):
    """A message as it travels: its code, a line's end, and JSON. `tool`: which start of the tool it is for or from, [how many were
    before it, its word]."""
    data = json.dumps([VERSION, number, tool, body]).encode()
    return hmac.new(key, data, hashlib.sha256).hexdigest().encode() + b"\n" + data


def opened(key, message):
    """(number, tool, body); None for what is not from who has the key, of which nothing is looked at, or of another version."""
    code, _, data = message.partition(b"\n")
    if not hmac.compare_digest(hmac.new(key, data, hashlib.sha256).hexdigest().encode(), code):
        return None
    version, number, tool, body = json.loads(data.decode())
    return (number, tool, body) if version == VERSION else None


class AzureMailbox:
    """A container to read from, a queue of requests to take from, and one for replies, each by a URL with its SAS."""

    BUSY, IDLE = 0.4, 4.0  # seconds between two looks for requests, when one is expected and when not

    def __init__(self, config):
        self._requests, self._replies, self._blobs = config["requests"], config["replies"], config["blobs"]

    @staticmethod
    def _url(base, path, query=""):
        place, _, sas = base.partition("?")
        return "%s%s?%s" % (place, path, "&".join(part for part in (query, sas) if part))

    def _ask(self, method, url, data=None, headers=None, missing=None):
        """The answer's body. Ended when the queue or container is gone or the SAS is over. The service's other errors are waited
        for."""
        until = time.monotonic() + PATIENCE_SECONDS
        pause = 0.5
        while True:
            request = urllib.request.Request(url, data=data, method=method)
            for name, value in dict(headers or {}, **{"x-ms-version": SERVICE_VERSION}).items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    if not answer.headers.get("x-ms-request-id"):
                        raise ValueError("an answer that is not the service's")
                    return answer.read()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404 and missing is not None:
                    raise missing
                if error.code in (401, 403, 404):
                    raise Ended("the session is over (%d)" % error.code)
                if error.code in (400, 413):
                    raise Unreached("the storage account does not take a request (%d)" % error.code)
                text = "HTTP %d" % error.code
            except (OSError, ValueError, http.client.HTTPException) as error:  # a broken connection, half an answer
                text = type(error).__name__
            if time.monotonic() > until:
                raise Unreached("the storage account cannot be reached: %s" % text)
            time.sleep(pause)
            pause = min(pause * 2, 15)

    def take(self):
        """Requests that are waiting, in no promised order, each with what `remove` takes; hidden from others for HIDDEN_SECONDS."""
        url = self._url(self._requests, "/messages", "numofmessages=16&visibilitytimeout=%d" % HIDDEN_SECONDS)
        found = []
        try:
            messages = xml.etree.ElementTree.fromstring(self._ask("GET", url))
        except xml.etree.ElementTree.ParseError:
            return []
        for message in messages:
            try:
                data = base64.b64decode(message.findtext("MessageText") or "", validate=True)
            except binascii.Error:
                data = b""
            receipt = urllib.parse.quote(message.findtext("PopReceipt") or "", safe="")
            found.append((data, (urllib.parse.quote(message.findtext("MessageId") or "", safe=""), receipt)))
        return found

    def remove(self, place):
        try:
            self._ask("DELETE", self._url(self._requests, "/messages/%s" % place[0], "popreceipt=%s" % place[1]))
        except Ended:
            pass  # it comes again, and is known by its number; whether the session is over the next look tells

    def post(self, data):
        text = base64.b64encode(data).decode()
        body = "<QueueMessage><MessageText>%s</MessageText></QueueMessage>" % text
        self._ask(
            "POST",
            self._url(self._replies, "/messages", "messagettl=3600"),
            body.encode(),
            {"Content-Type": "application/xml"},
        )

    def blob(self, name):
        return self._ask("GET", self._url(self._blobs, "/" + name), missing=Refused("the worker took it back"))


class FolderMailbox:
    """The same in a folder: for a machine that has no Azure."""

    BUSY, IDLE = 0.02, 0.5

    def __init__(self, config):
        self._root = config["folder"]

    def take(self):
        place = os.path.join(self._root, "requests")
        found = []
        try:
            for name in sorted(os.listdir(place)):
                if not name.endswith(".tmp"):
                    path = os.path.join(place, name)
                    try:
                        with open(path, "rb") as file:
                            found.append((file.read(), path))
                    except FileNotFoundError:
                        pass  # another tool's, which took it
        except OSError:
            raise Ended("the session is over")
        return found

    def remove(self, place):
        try:
            os.unlink(place)
        except OSError:
            pass

    def post(self, data):
        name = "%020d-%s" % (time.time() * 1e6, binascii.hexlify(os.urandom(4)).decode())
        path = os.path.join(self._root, "replies", name)
        try:
            with open(path + ".tmp", "wb") as file:
                file.write(data)
            os.chmod(path + ".tmp", 0o644)  # the worker may be another user, whom the folder above belongs to
            os.rename(path + ".tmp", path)
        except OSError:
            raise Ended("the session is over")

    def blob(self, name):
        try:
            with open(os.path.join(self._root, "blobs", name), "rb") as file:
                return file.read()
        except OSError:
            raise Refused("the worker took it back")


class Tool:
    """Takes requests until the session is over."""

    def __init__(self, config, mailbox, files):
        self._mailbox = mailbox
        self._files = files
        self._until = config["until"]
        self._nonce = binascii.hexlify(os.urandom(16)).decode()
        key = binascii.unhexlify(config["key"])
        self._hello, self._in, self._out = (derived(key, way) for way in ("hello", "requests", "replies"))
        self._before = None  # how many tools there were before this one, once the worker said so
        self._taken, self._sent = 0, 0
        self._early = {}
        self._run = None
        self._rows, self._size = [], 0
        self._idle = False
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self._over = threading.Event()

    def hello(self):
        system = os.uname()
        self._mailbox.post(
            sealed(
                self._hello,
                0,
                [0, self._nonce],
                {
                    "is": "hello", "version": VERSION, "host": system.nodename, "system": system.sysname,
                    "release": system.release, "user": os.geteuid(), "python": "%d.%d" % sys.version_info[:2],
                },
            )
        )  # fmt: skip

    def work(self):
        """Until the worker says stop, or Ended."""
        heard = time.monotonic()
        threading.Thread(target=self._speak, daemon=True).start()
        try:
            while True:
                if time.time() > self._until:
                    raise Ended("the session's time is over")
                took = False
                self._listen()
                while self._taken + 1 in self._early:
                    self._idle = False
                    self._taken += 1
                    took = True
                    if not self._handle(self._early.pop(self._taken)):
                        return
                now = time.monotonic()
                if took:
                    heard = now
                    continue
                self._idle = True
                time.sleep(self._mailbox.BUSY if now - heard < BUSY_FOR else self._mailbox.IDLE)
        finally:
            self._over.set()
            if self._run is not None:
                self._run.tell = lambda *status: None
                self._run.end()

    def _listen(self):
        """Requests that are there. What is for a later tool is left to it, and this one ends."""
        for data, place in self._mailbox.take():
            message = opened(self._in, data)
            if message is not None:
                number, (before, nonce), body = message
                if nonce == self._nonce:
                    self._before = before
                    if number > self._taken:
                        self._early[number] = body
                elif self._before is None:
                    continue  # perhaps it is for a later one
                elif before > self._before:
                    raise Ended("another restore tool was started for this session")
            self._mailbox.remove(place)

    def _speak(self):
        """The worker hears now and then that this is there, also while it works; and which request it took last, so that one that
        was lost on its way is sent again."""
        while not self._over.wait(1.0):
            if time.monotonic() - self._told > HERE_SECONDS:
                try:
                    self._post({"is": "here", "taken": self._taken, "idle": self._idle})
                except Ended:
                    return  # the other thread hears of it, too

    def _post(self, body):
        with self._lock:
            self._sent += 1
            self._told = time.monotonic()
            self._mailbox.post(sealed(self._out, self._sent, [self._before, self._nonce], body))

    def _handle(self, request):
        """Whether there may be more."""
        what = request["do"]
        if what == "stop":
            return False
        if what == "welcome":
            return True
        answer = {"is": "answer", "to": request["id"]}
        try:
            if what == "look":
                manifest = json.loads(self._manifest(request).decode())
                for start in range(0, len(manifest["paths"]), 100):
                    for row in look(self._files, manifest["paths"][start : start + 100]):
                        self._row(request["id"], row)
                answer["free"] = free(self._files, manifest["base"])
            elif what == "steps":
                self._steps(request)
            elif what == "end":
                self._end(request["id"])
            else:
                raise Refused("a request that this tool does not know: %s" % printable(str(what)))
        except (Refused, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            answer["problem"] = (
                str(error) if isinstance(error, Refused) else "%s: %s" % (type(error).__name__, reason(error))
            )
        self._flush(request["id"])
        self._post(answer)
        return True

    def _manifest(self, request):
        data = self._mailbox.blob(request["manifest"])
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), request["sha256"]):
            raise Refused("a manifest is not the one that was announced")
        return data

    def _steps(self, request):
        lines = self._manifest(request).decode().split("\n")
        order = json.loads(lines[0])
        if self._run is None or self._run.id != order["run"]:
            if self._run is not None:
                self._run.tell = lambda *status: None  # whoever asked for it has given it up
                self._run.end()
            self._run = Run(self._files, order, lambda *status: self._row(request["id"], status))
        run = self._run
        run.tell = lambda *status: self._row(request["id"], status)
        pack = self._mailbox.blob(request["pack"]) if request.get("pack") else b""
        view = memoryview(pack)
        for line in lines[1:]:
            if line:
                run.step(json.loads(line), lambda where, length: view[where : where + length])

    def _end(self, identifier):
        if self._run is not None:
            self._run.tell = lambda *status: self._row(identifier, status)
            self._run.end()
            self._run = None

    def _row(self, identifier, row):
        """Rows of an answer go out as many at once as a message has room for."""
        row = [
            part if not isinstance(part, str) or len(part) <= LONGEST_TEXT else part[:LONGEST_TEXT] + "..."
            for part in row
        ]
        size = len(json.dumps(row))
        if self._size + size > MOST_REPLY:
            self._flush(identifier)
        self._rows.append(row)
        self._size += size

    def _flush(self, identifier):
        if self._rows:
            self._post({"is": "rows", "to": identifier, "rows": self._rows})
        self._rows, self._size = [], 0


def main(config):
    """The exit code. `config`: see docs/restore-tool.md; it holds secrets and comes by standard input, never as an argument."""
    mailbox = FolderMailbox(config) if "folder" in config else AzureMailbox(config)
    tool = Tool(config, mailbox, Local())
    connected = False
    try:
        tool.hello()
        connected = True
        if config.get("detach"):
            sys.stdout.write("the restore tool is connected and goes on by itself until the session ends\n")
            sys.stdout.flush()
            _detach()
        tool.work()
    except Ended as error:
        sys.stderr.write("restore tool: %s\n" % error)
        return 0 if connected and not isinstance(error, Unreached) else 1
    return 0


def _detach():
    """Go on without whoever started this, who may wait for it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.stdin.read())))
elif "CONFIG" in globals():  # as the worker's command line runs it
    sys.exit(main(globals()["CONFIG"]))
