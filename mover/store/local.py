# SPDX-License-Identifier: Apache-2.0
"""A store in a directory, shared by all processes of one host: objects are plain files, `<root>/<name>`.

It keeps every MUST of `base` for them: an object appears whole and durable by one rename; records change under a lock,
ETag and content in one rename (`local_envelope`); leases are files judged by this boot's clock (`local_lease`). It is
not for network file systems (`local_mount` refuses them) and it does not compress, check or cache contents.

Beside the objects stand `.tmp` (files being written), `.locks` and `.leases`; a copy of the folder needs none of them.
"""

from __future__ import annotations

import fcntl
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mover.clock import SYSTEM, Clock
from mover.errors import (
    ConditionFailed,
    LeaseLost,
    NotARecord,
    ObjectExists,
    ObjectNotFound,
    ShortObject,
    StoreError,
    UsageError,
)
from mover.store import lease as leases
from mover.store.base import NAME_PART, Buffer, Entry, Record, Store, Written, check_name, check_prefix
from mover.store.local_envelope import LARGEST, MAGIC, OBJECT_LINE, PLAIN, Envelope, first_line, read_envelope
from mover.store.local_io import (
    durable_file,
    durable_folder,
    errors_named,
    folder_in_the_way,
    make_folders,
    remove_forgotten,
)
from mover.store.local_lease import LeaseFiles, this_boot
from mover.store.local_mount import refuse_network
from mover.store.local_open_files import OpenFile, OpenFiles
from mover.store.record_rules import RECORD_LIMIT, check_lease_seconds, check_record

_LOCKS = 64  # names share them by hash; what a lock covers is short
_LISTING = "listing"
_PATIENCE = 100  # folders made again for one object, while deletions remove them as they become empty


class LocalStore(Store):
    """`path` need not exist: the first write makes it. `boot` names this boot of the machine (tests give others)."""

    def __init__(self, path: str | os.PathLike[str], clock: Clock = SYSTEM, boot: str | None = None) -> None:
        with errors_named(str(path)):
            self._root = Path(path).resolve()
        refuse_network(self._root)
        self._clock = clock
        self._temporary = self._root / ".tmp"
        self._locks = self._root / ".locks"
        self._leases = LeaseFiles(self._root / ".leases", self._temporary, boot or this_boot())
        self._files = OpenFiles(self._root)
        self._durable: set[Path] = {self._root}  # folders known to outlive a power cut
        self._made = False
        if self._is_made():
            try:
                remove_forgotten(self._temporary, clock.wall())
            except OSError:
                pass  # a store that may only be read is opened too

    # -- objects

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        check_name(name)
        self._make(name)
        views = [memoryview(part).cast("B") for part in parts]
        if _beginning(views).startswith(MAGIC):
            if sum(view.nbytes for view in views) > RECORD_LIMIT:
                raise UsageError("an object so large must not begin like a record", name)
            views.insert(0, memoryview(OBJECT_LINE))
        with errors_named(name), durable_file(self._temporary, views) as new, self._locked(name):
            self._give_name(new, name)

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        check_name(name)
        with self._open(name) as file:
            if offset < 0 or offset + target.nbytes > file.size:
                raise ShortObject(f"the object has {file.size} bytes, {offset}+{target.nbytes} were asked for", name)
            done = 0
            while done < target.nbytes:
                count = os.preadv(file.descriptor, [target[done:]], file.envelope.start + offset + done)
                if not count:
                    raise ShortObject("the object became shorter while it was read", name)
                done += count

    def size(self, name: str) -> int:
        check_name(name)
        with self._open(name) as file:
            return file.size

    # -- records

    def create_record(self, name: str, data: bytes, metadata: Mapping[str, str]) -> Written:
        check_name(name)
        check_record(name, data, metadata)
        self._make(name)
        etag = _new_etag()
        views = [memoryview(first_line(etag, metadata)), memoryview(data)]
        with errors_named(name), durable_file(self._temporary, views) as new, self._locked(name):
            self._give_name(new, name)
        return Written(etag, self._clock.wall())

    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        check_name(name)
        check_record(name, data, metadata)
        self._make(name)
        path, new_etag = self._root / name, _new_etag()
        views = [memoryview(first_line(new_etag, metadata)), memoryview(data)]
        with errors_named(name), durable_file(self._temporary, views) as new, self._locked(name):
            self._admit(name, etag, lease)
            # A listing holds this lock while it scans a folder: where readdir() goes by the order of creation (tmpfs,
            # btrfs), a name that is replaced meanwhile can be seen neither before nor after; one listing in seven was
            # short on tmpfs without the lock.
            with durable_folder(path.parent), self._lock(_LISTING, fcntl.LOCK_SH):
                os.rename(new, path)
        return Written(new_etag, self._clock.wall())

    def read_record(self, name: str) -> Record:
        check_name(name)
        with self._open(name) as file:
            # The file is never written again under this inode, so content and first line are of one moment.
            data = os.pread(file.descriptor, file.size, file.envelope.start)
            if file.envelope is PLAIN or not file.envelope.etag:
                raise NotARecord("what stands there is no record", name)
            if len(data) != file.size:
                raise ShortObject(f"the record has {len(data)} bytes of {file.size}", name)
            leased = leases.is_active(self._leases.read(name), self._clock.monotonic())
            return Record(data, file.envelope.etag, dict(file.envelope.metadata), leased, self._clock.wall())

    # -- both

    def list(self, prefix: str) -> Iterator[Entry]:
        folder, slash, beginning = check_prefix(prefix).rpartition("/")
        return self._walk(folder + slash, beginning)

    def _walk(self, folder: str, beginning: str) -> Iterator[Entry]:
        """Names below `folder` (empty or ending in '/') whose next part begins so, in the order of whole names."""
        for key in self._scan(folder, beginning):
            if key.endswith("/"):
                yield from self._walk(folder + key, "")
            elif (entry := self._entry(folder + key)) is not None:
                yield entry

    def _scan(self, folder: str, beginning: str) -> Sequence[str]:
        """The folder's files, and its folders with a '/' at the end: then plain order is the order of whole names."""
        keys = []
        with errors_named(folder or "."):
            lock = self._lock(_LISTING) if self._is_made() else nullcontext()
            try:
                with lock, os.scandir(self._root / folder) as found:
                    for item in found:
                        if not NAME_PART.match(item.name) or not item.name.startswith(beginning):
                            continue
                        if item.is_symlink():
                            raise StoreError("a symbolic link stands in the local store", folder + item.name)
                        keys.append(item.name + "/" if item.is_dir() else item.name)
            except (FileNotFoundError, NotADirectoryError):
                return []  # no such folder, or its last object was deleted meanwhile
        return sorted(keys)

    def _entry(self, name: str) -> Entry | None:
        with errors_named(name):
            try:
                descriptor = os.open(f"{self._root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None  # deleted since the folder was read
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise StoreError("something that is not a file stands in the local store", name)
                envelope = read_envelope(descriptor, name) if status.st_size <= LARGEST else PLAIN
            finally:
                os.close(descriptor)
        return Entry(name, status.st_size - envelope.start, envelope.metadata)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        check_name(name)
        path = self._root / name
        with errors_named(name), self._locked(name):
            self._admit(name, etag, lease)
            self._leases.write(name, None)  # first: a crash may end a lease, but never leave one to a later record
            with durable_folder(path.parent):
                path.unlink()
        self._remove_empty(path.parent)

    # -- leases

    def acquire_lease(self, name: str, seconds: int) -> str:
        check_name(name)
        check_lease_seconds(name, seconds)
        with errors_named(name), self._locked(name):
            self._envelope(name)
            held = self._leases.read(name)
            new = leases.acquired(name, held, os.urandom(16).hex(), seconds, self._clock.monotonic())
            self._leases.write(name, new)
            return new.id

    def renew_lease(self, name: str, lease: str) -> None:
        check_name(name)
        if not self._is_made():
            raise LeaseLost("the lease named is no longer the record's", name)
        with errors_named(name), self._locked(name):
            held = self._leases.read(name)
            self._leases.write(name, leases.renewed(name, held, lease, self._clock.monotonic()))

    def release_lease(self, name: str, lease: str) -> None:
        check_name(name)
        if not self._is_made():
            raise LeaseLost("the lease named is no longer the record's", name)
        with errors_named(name), self._locked(name):
            leases.own(name, self._leases.read(name), lease)
            self._leases.write(name, None)

    def break_lease(self, name: str) -> None:
        check_name(name)
        with errors_named(name), self._locked(name):
            self._envelope(name)
            self._leases.write(name, leases.broken(self._leases.read(name)))

    def close(self) -> None:
        self._files.close()

    # -- inside

    def _is_made(self) -> bool:
        """Whether this store has been made. Once seen it stays true, so that a vanished disk is an error, not empty."""
        with errors_named(str(self._root)):
            self._made = self._made or self._locks.is_dir()
        return self._made

    def _make(self, name: str) -> None:
        if self._is_made():
            return
        with errors_named(name):
            there = next(folder for folder in (self._root, *self._root.parents) if folder.is_dir())
            make_folders(there, self._root)
            with durable_folder(self._root):
                for folder in (self._temporary, self._root / ".leases"):
                    folder.mkdir(exist_ok=True)
                # Complete before it gets its name: whoever sees `.locks` finds every lock in it.
                made = self._root / f".locks-{os.urandom(8).hex()}"
                made.mkdir()
                for lock in (*map(_lock_name, range(_LOCKS)), _LISTING):
                    (made / lock).touch()
                try:
                    os.rename(made, self._locks)
                except OSError:
                    if not self._locks.is_dir():
                        raise
                    for file in made.iterdir():  # another process was faster
                        file.unlink()
                    made.rmdir()
        self._made = True

    @contextmanager
    def _lock(self, lock: str, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Against threads too: every caller opens the lock's file for itself. A dead process holds none."""
        try:
            descriptor = os.open(self._locks / lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # An unmounted disk leaves an empty folder behind: it must not look like an empty store (I6).
            raise StoreError("the local store is gone", str(self._root), "is its disk mounted?") from None
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        if not self._is_made():
            if not (self._root / name).exists():
                raise ObjectNotFound("no such object", name)
            self._make(name)  # a copy that a person made, without the folders that begin with a dot
        with self._lock(_lock_name(zlib.crc32(name.encode()) % _LOCKS)):
            yield

    @contextmanager
    def _open(self, name: str) -> Iterator[OpenFile]:
        with errors_named(name), self._files.use(name) as file:
            yield file

    def _envelope(self, name: str) -> Envelope:
        descriptor = os.open(f"{self._root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_envelope(descriptor, name)
        finally:
            os.close(descriptor)

    def _give_name(self, new: Path, name: str) -> None:
        """Put-if-absent, under the name's lock."""
        path = self._root / name
        for _ in range(_PATIENCE):
            if path.is_dir():
                raise folder_in_the_way(name)
            if path.exists():
                raise ObjectExists("the name is taken", name)
            self._leases.write(name, None)  # one that stayed behind when a person removed the file
            try:
                if path.parent not in self._durable:
                    make_folders(self._root, path.parent)
                    self._durable.add(path.parent)
                with durable_folder(path.parent):
                    os.rename(new, path)
            except FileNotFoundError:
                self._durable = {self._root}  # a deletion has removed the emptied folder since
            else:
                return
        raise StoreError("the object's folder vanishes as often as it is made", name)

    def _admit(self, name: str, etag: str | None, lease: str | None) -> None:
        """Under the name's lock: raise unless a write with this ETag and lease is allowed; end a lapsed lease."""
        envelope, held = self._envelope(name), self._leases.read(name)
        left = leases.after_write(name, held, lease, self._clock.monotonic())
        if etag is not None and etag != envelope.etag:
            raise ConditionFailed("the record was written since its ETag was read", name)
        if left is None and held is not None:
            self._leases.write(name, None)  # before the write: a crash between them ends a lease, it never revives one

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or removed by another, or a matter of looks only
            self._durable.discard(folder)
            folder = folder.parent


def _lock_name(number: int) -> str:
    return f"{number:02x}"


def _new_etag() -> str:
    return os.urandom(16).hex()


def _beginning(views: Sequence[memoryview]) -> bytes:
    start = b""
    for view in views:
        start += bytes(view[: len(MAGIC) - len(start)])
        if len(start) == len(MAGIC):
            break
    return start
