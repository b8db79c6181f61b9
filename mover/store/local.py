# SPDX-License-Identifier: Apache-2.0
"""A store in a directory, shared by all processes of one host: objects are plain files, `<root>/<name>`.

It keeps every MUST of `base` for them: an object appears whole and durable by one rename; records change under a lock,
ETag and content in one rename (`local_envelope`); leases are files judged by this boot's clock (`local_lease`). It is
not for network file systems (`local_mount` refuses them) and it does not compress, check or cache contents.

Beside the objects stand `.tmp` (files being written), `.locks` and `.leases`; a backup of the folder needs none of them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mover.clock import SYSTEM, Clock
from mover.errors import (
    AccessDenied,
    ConditionFailed,
    LeaseLost,
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
    errors_named,
    fsync_folder,
    locked,
    make_folders,
    remove_forgotten,
    translated,
)
from mover.store.local_lease import LeaseFiles, this_boot
from mover.store.local_mount import refuse_network
from mover.store.local_open_files import OpenFile, OpenFiles
from mover.store.record_rules import RECORD_LIMIT, check_lease_seconds, check_record

_LOCKS = 64  # names share them by hash; what a lock covers is short
_LISTING = "listing"


class LocalStore(Store):
    """`path` need not exist: the first write makes it. `boot` names this boot of the machine (tests give others)."""

    def __init__(self, path: str | os.PathLike[str], clock: Clock = SYSTEM, boot: str | None = None) -> None:
        self._root = Path(path).resolve()
        refuse_network(self._root)
        self._clock = clock
        self._temporary = self._root / ".tmp"
        self._locks = self._root / ".locks"
        self._leases = LeaseFiles(self._root / ".leases", boot or this_boot())
        self._files = OpenFiles(self._root)
        self._prepared = self._locks.is_dir()
        if self._prepared:
            try:
                remove_forgotten(self._temporary, clock.wall())
            except OSError:
                pass  # a store that may only be read is opened too

    # -- objects

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        check_name(name)
        self._prepare(name)
        views = [memoryview(part).cast("B") for part in parts]
        if _beginning(views).startswith(MAGIC):
            if sum(view.nbytes for view in views) > RECORD_LIMIT:
                raise UsageError("an object so large must not begin like a record", name)
            views.insert(0, memoryview(OBJECT_LINE))
        with errors_named(name), durable_file(self._temporary, views) as new:
            with self._locked(name):
                self._give_name(new, name)
            fsync_folder((self._root / name).parent)

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
        self._prepare(name)
        etag = _new_etag()
        views = [memoryview(first_line(etag, metadata)), memoryview(data)]
        with errors_named(name), durable_file(self._temporary, views) as new, self._locked(name):
            self._give_name(new, name)
            fsync_folder((self._root / name).parent)
        return Written(etag, self._clock.wall())

    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        check_name(name)
        check_record(name, data, metadata)
        self._prepare(name)
        path, new_etag = self._root / name, _new_etag()
        views = [memoryview(first_line(new_etag, metadata)), memoryview(data)]
        with errors_named(name), durable_file(self._temporary, views) as new, self._locked(name):
            self._admit(name, etag, lease)
            # A listing holds this lock while it scans a folder: some file systems (btrfs) may show a name that is
            # being replaced neither at its old place in the folder nor at its new one.
            with locked(self._locks / _LISTING, fcntl.LOCK_SH):
                os.rename(new, path)
            fsync_folder(path.parent)
        return Written(new_etag, self._clock.wall())

    def read_record(self, name: str) -> Record:
        check_name(name)
        with self._open(name) as file:
            # The file is never written again under this inode, so content and first line are of one moment.
            data = os.pread(file.descriptor, file.size, file.envelope.start)
            if file.envelope is PLAIN or not file.envelope.etag:
                raise StoreError("an object was read as a record", name)
            if len(data) != file.size:
                raise ShortObject(f"the record has {len(data)} bytes of {file.size}", name)
            leased = leases.is_active(self._leases.read(name), self._clock.monotonic())
            return Record(data, file.envelope.etag, dict(file.envelope.metadata), leased, self._clock.wall())

    # -- both

    def list(self, prefix: str) -> Iterator[Entry]:
        check_prefix(prefix)
        self._prepared = self._prepared or self._locks.is_dir()
        folder, _, beginning = prefix.rpartition("/")
        return self._walk(folder + "/" if folder else "", beginning)

    def _walk(self, folder: str, beginning: str) -> Iterator[Entry]:
        """Names below `folder` (empty or ending in '/') whose next part begins so, in the order of whole names."""
        for key in self._scan(folder, beginning):
            if key.endswith("/"):
                yield from self._walk(folder + key, "")
            elif (entry := self._entry(folder + key)) is not None:
                yield entry

    def _scan(self, folder: str, beginning: str) -> list[str]:
        """The folder's files, and its folders with a '/' at the end: then plain order is the order of whole names."""
        keys = []
        shown = folder or "."
        try:
            with self._listing_lock(), os.scandir(self._root / folder) as found:
                for item in found:
                    if not NAME_PART.match(item.name) or not item.name.startswith(beginning):
                        continue
                    if item.is_symlink():
                        raise StoreError("a symbolic link stands in the local store", folder + item.name)
                    keys.append(item.name + "/" if item.is_dir() else item.name)
        except FileNotFoundError:
            if self._prepared and not (self._locks / _LISTING).exists():
                # An unmounted disk leaves an empty folder behind: that must not look like an empty store (I6).
                raise StoreError("the local store is gone", str(self._root), "is its disk mounted?") from None
            return []  # no such folder, or its last object was deleted meanwhile
        except OSError as error:
            raise _unlisted(error, shown) from error
        return sorted(keys)

    def _entry(self, name: str) -> Entry | None:
        try:
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # deleted since the folder was read
        except OSError as error:
            raise _unlisted(error, name) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError("something that is not a file stands in the local store", name)
            envelope = read_envelope(descriptor, name) if status.st_size <= LARGEST else PLAIN
        except OSError as error:
            raise _unlisted(error, name) from error
        finally:
            os.close(descriptor)
        return Entry(name, status.st_size - envelope.start, envelope.metadata)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        check_name(name)
        path = self._root / name
        with errors_named(name), self._locked(name):
            self._admit(name, etag, lease)
            self._leases.write(name, None)  # first: a crash may end a lease, but never leave one to a later record
            path.unlink()
            fsync_folder(path.parent)
        self._remove_empty(path.parent)

    # -- leases

    def acquire_lease(self, name: str, seconds: int) -> str:
        check_name(name)
        check_lease_seconds(name, seconds)
        with errors_named(name), self._locked(name):
            self._envelope(name)
            held = self._leases.read(name)
            new = leases.acquired(name, held, secrets.token_hex(16), seconds, self._clock.monotonic())
            self._leases.write(name, new)
            return new.id

    def renew_lease(self, name: str, lease: str) -> None:
        check_name(name)
        with errors_named(name), self._locked(name, LeaseLost):
            held = self._leases.read(name)
            self._leases.write(name, leases.renewed(name, held, lease, self._clock.monotonic()))

    def release_lease(self, name: str, lease: str) -> None:
        check_name(name)
        with errors_named(name), self._locked(name, LeaseLost):
            leases.own(name, self._leases.read(name), lease)
            self._leases.write(name, None)

    def break_lease(self, name: str) -> None:
        check_name(name)
        with errors_named(name), self._locked(name):
            self._envelope(name)
            self._leases.write(name, None)

    def close(self) -> None:
        self._files.close()

    # -- inside

    def _prepare(self, name: str) -> None:
        """Make the store's folders, once. Never again in its life: a store whose disk vanished is not made anew."""
        if self._prepared:
            return
        with errors_named(name):
            self._root.mkdir(parents=True, exist_ok=True)
            for folder in (self._temporary, self._root / ".leases"):
                folder.mkdir(exist_ok=True)
            # Complete before it has its name: whoever sees `.locks` finds every lock in it.
            made = self._root / f".locks-{secrets.token_hex(8)}"
            made.mkdir()
            for lock in [f"{number:02x}" for number in range(_LOCKS)] + [_LISTING]:
                (made / lock).touch()
            fsync_folder(made)
            try:
                os.rename(made, self._locks)
            except OSError:
                for lock_file in made.iterdir():
                    lock_file.unlink()
                made.rmdir()
                if not self._locks.is_dir():
                    raise
            fsync_folder(self._root)
            fsync_folder(self._root.parent)
        self._prepared = True

    @contextmanager
    def _locked(self, name: str, when_absent: type[StoreError] = ObjectNotFound) -> Iterator[None]:
        try:
            lock = locked(self._locks / f"{zlib.crc32(name.encode()) % _LOCKS:02x}")
            lock.__enter__()
        except FileNotFoundError:
            if self._prepared:
                raise StoreError("the local store is gone", str(self._root), "is its disk mounted?") from None
            raise when_absent("no such object", name) from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def _listing_lock(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    @contextmanager
    def _open(self, name: str) -> Iterator[OpenFile]:
        with errors_named(name), self._files.use(name) as file:
            yield file

    def _envelope(self, name: str) -> Envelope:
        descriptor = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_envelope(descriptor, name)
        finally:
            os.close(descriptor)
