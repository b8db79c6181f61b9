# SPDX-License-Identifier: Apache-2.0
"""To the original machine, or to another one, over SFTP: any machine with an SSH server, a user and its host key.

The server's key is pinned: a machine with another one is not talked to, and nothing is learnt at the first contact. The worker
itself runs the rules and steps (`flr.restore.tool.Run`) on the server's files. SFTP has no extended attributes, and opens by path
only: each part of a path is looked at and a link refused, but who may change the folders meanwhile could slip one in.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import stat
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import asyncssh
from asyncssh import constants as sftp

from flr.restore import tool
from flr.restore.target import Found, Order, State, Status, Step, TargetGone, Tell
from mover.errors import AccessDenied, UsageError

CONNECT_SECONDS, ANSWER_SECONDS = 20.0, 120.0
KEEPALIVE_SECONDS = 15
AT_ONCE, SMALL = 8, 1 << 20
"""Files of at most so many bytes that are written beside each other: each waits for a dozen answers."""
T = TypeVar("T")
_GONE = (
    *(asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError),
    ConnectionError,
)
LACKS = (
    "extended attributes and access control lists do not come back over SFTP; those that a folder gives its files stay"
)


class Login(NamedTuple):
    """`host_key`: the server's public key as a line of known_hosts has it ("ssh-ed25519 AAAA..."). One of `password` and `key`,
    the text of a private key."""

    host: str
    port: int
    user: str
    host_key: str
    password: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"Login({self.user}@{self.host}:{self.port})"


class SftpTarget:
    """Connects when it is used first, and anew when the connection broke."""

    name = "SFTP"
    resolution = 10**9

    def __init__(self, login: Login) -> None:
        self._login = login
        try:
            self._pinned = asyncssh.import_public_key(login.host_key)
        except (asyncssh.KeyImportError, ValueError):
            raise UsageError(
                "not a host key", login.host_key[:40], "a line as `ssh-keyscan` prints it, without the host's name"
            ) from None
        try:
            self._key = asyncssh.import_private_key(login.key) if login.key else None
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
            raise UsageError(
                "not a private key that can be used", login.user, "one in OpenSSH's or PEM form, without a passphrase"
            ) from None
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_unheard)
        self._thread = threading.Thread(target=self._loop.run_forever, name="flr-sftp", daemon=True)
        self._thread.start()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._problem: TargetGone | AccessDenied | None = None

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float = ANSWER_SECONDS) -> T:
        """TimeoutError; TargetGone when this is closed meanwhile."""
        if self._closed.is_set():
            work.close()
            raise TargetGone("the session has ended")
        try:
            return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop).result(seconds + 5)
        except CancelledError:
            raise TargetGone("the session has ended") from None

    def _connected(self) -> asyncssh.SFTPClient:
        with self._lock:
            if self._client is None:
                where = f"{self._login.user}@{self._login.host}:{self._login.port}"
                try:
                    self._client = self._wait(self._connect(), 2 * CONNECT_SECONDS)
                except asyncssh.HostKeyNotVerifiable:
                    raise AccessDenied(
                        "the machine's host key is not the pinned one",
                        where,
                        "it is another machine, or somebody is between",
                    ) from None
                except asyncssh.PermissionDenied:
                    raise AccessDenied("the machine does not take this user or secret", where) from None
                except (asyncssh.Error, OSError, TimeoutError) as error:
                    raise TargetGone("the machine is not reached by SSH", f"{where}: {_words(error)}") from None
            return self._client

    async def _connect(self) -> asyncssh.SFTPClient:
        login = self._login
        self._connection = await asyncssh.connect(
            login.host,
            login.port,
            username=login.user,
            password=login.password or None,
            client_keys=[self._key] if self._key is not None else None,
            known_hosts=([self._pinned], [], []),
            agent_path=None,
            config=None,
            connect_timeout=CONNECT_SECONDS,
            login_timeout=CONNECT_SECONDS,
            keepalive_interval=KEEPALIVE_SECONDS,
            client_version="data-mover",
        )
        return await self._connection.start_sftp_client()

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            asyncio.run_coroutine_threadsafe(_ended(connection), self._loop)

    def ask(self, make: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]]) -> T:
        """An answer of the server's. OSError for what it refuses, TargetGone when the connection is."""
        client = self._connected()
        try:
            return self._wait(make(client))
        except (*_GONE, TimeoutError) as error:
            self._drop()
            raise TargetGone("the connection to the machine broke", f"{self._login.host}: {_words(error)}") from None
        except asyncssh.SFTPError as error:
            raise _as_oserror(error) from None

    # -- a target

    def state(self) -> State:
        where = f"{self._login.user}@{self._login.host}"
        try:
            self._connected()
        except (TargetGone, AccessDenied) as error:
            return State(False, f"{error.what}: {error.value}", self._login.host)
        lacks = (
            [LACKS]
            if self._login.user == "root"
            else [LACKS, f"{self._login.user} is not root: owners may not come back"]
        )
        return State(True, f"connected as {where}", self._login.host, lacks)

    def look(self, base: str, paths: Sequence[str]) -> tuple[list[Found], int | None]:
        files = _Files(self)
        found = [Found(*row) for row in tool.look(files, list(paths))]
        try:
            return found, tool.free(files, base)
        except OSError:
            return found, None

    def run(self, order: Order, steps: Iterable[Step], tell: Tell) -> None:
        run = tool.Run(_Files(self), order.document(), lambda *status: tell(Status(*status)))

        def carry_out(some: list[Step]) -> None:
            for step in some:
                run.step([*step.line, 0] if step.data else step.line, lambda where, length, step=step: step.data)

        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(AT_ONCE, "flr-sftp-file") as pool:
            try:
                for some in _units(steps):
                    if len(some) == 1:
                        carry_out(some)
                        continue
                    waiting.append(pool.submit(carry_out, some))
                    while len(waiting) > AT_ONCE:
                        waiting.popleft().result()
                while waiting:
                    waiting.popleft().result()
            finally:
                for left in waiting:
                    left.cancel()
                wait(waiting)
                run.end()

    def close(self) -> None:
        """Also while others wait for a server that does not answer: they are told that the session has ended."""
        if self._closed.is_set():
            return
        self._closed.set()
        connection, self._connection, self._client = self._connection, None, None
        asyncio.run_coroutine_threadsafe(_all_ended(connection), self._loop).result(CONNECT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _units(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps that can be carried out beside others: all those of one small file. Any other step comes alone."""
    held: list[Step] = []
    for step in steps:
        if held and step.line[1] != held[0].line[1]:  # of another one before this one's end
            yield from ([one] for one in held)
            held = []
        if held or (step.line[0] == "open" and step.line[4] <= SMALL):
            held.append(step)
            if step.line[0] in ("close", "drop"):
                yield held
                held = []
        else:
            yield [step]
    if held:
        yield held


class _Files:
    """The server's files as `flr.restore.tool.Local` has this machine's. A folder is its path."""

    resolution = 10**9  # of SFTP's times

    def __init__(self, target: SftpTarget) -> None:
        self._ask = target.ask

    def open_root(self) -> bytes:
        return b"/"

    def open_folder(self, folder: bytes, name: str) -> bytes:
        path = posixpath.join(folder, tool.raw(name))
        found = self._ask(lambda client: client.lstat(path))
        kind = stat.S_IFMT(found.permissions or 0)
        if kind == stat.S_IFLNK:
            target = os.fsencode(self._ask(lambda client: client.readlink(path))).decode("utf-8", "surrogateescape")
            raise tool.Refused(tool.in_the_way(name, target))
        if kind != stat.S_IFDIR:
            raise tool.Refused(tool.in_the_way(name, ""))
        return path

    def close_folder(self, folder: bytes) -> None:
        pass

    def look(self, folder: bytes, name: str) -> tuple[str, int, int]:
        path = posixpath.join(folder, tool.raw(name))
        try:
            found = self._ask(lambda client: client.lstat(path))
        except FileNotFoundError:
            return "", 0, 0
        kind = tool.KINDS.get(stat.S_IFMT(found.permissions or 0), "other")
        modified = found.mtime or 0
        if modified >= 1 << 31:  # 32 bits, of which 2038 and 1901 make different years: a file of today is of neither
            modified -= 1 << 32
        return kind, found.size or 0, modified * 10**9

    def names(self, folder: bytes) -> list[str]:
        found = self._ask(lambda client: client.listdir(folder))
        return [os.fsencode(name).decode("utf-8", "surrogateescape") for name in found]

    def free(self, folder: bytes) -> int:
        found = self._ask(lambda client: client.statvfs(folder))
        return int(found.bavail * found.frsize)

    def make_folder(self, folder: bytes, name: str) -> None:
        attributes = asyncssh.SFTPAttrs(permissions=0o700)
        self._ask(lambda client: client.mkdir(posixpath.join(folder, tool.raw(name)), attributes))

    def make_link(self, folder: bytes, name: str, target: str) -> None:
        self._ask(lambda client: client.symlink(tool.raw(target), posixpath.join(folder, tool.raw(name))))

    def create(self, folder: bytes, name: str) -> Any:
        path = posixpath.join(folder, tool.raw(name))
        attributes = asyncssh.SFTPAttrs(permissions=0o600)

        async def opened(client: asyncssh.SFTPClient) -> Any:
            return await client.open(path, "xb", attributes)

        return self._ask(opened)

    def write(self, file: Any, data: bytes, offset: int) -> None:
        self._ask(lambda client: file.write(data, offset))

    def resize(self, file: Any, size: int, written: int) -> None:
        if written != size:
            self._ask(lambda client: file.truncate(size))

    def settle(self, file: Any) -> None:
        pass  # what the server holds back is its own affair

    def sync(self, file: Any) -> None:
        try:
            self._ask(lambda client: file.fsync())
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise

    def close(self, file: Any) -> None:
        self._ask(lambda client: file.close())

    def dress(self, folder: bytes, name: str, kind: str, attributes: dict[str, Any], file: Any = None) -> list[str]:
        path = posixpath.join(folder, tool.raw(name))
        problems: list[str] = []

        def attempt(what: str, made: asyncssh.SFTPAttrs) -> None:
            try:
                if file is not None:
                    self._ask(lambda client: file.setstat(made))
                else:
                    self._ask(lambda client: client.setstat(path, made, follow_symlinks=False))
            except (OSError, OverflowError, ValueError) as error:
                problems.append(f"{what}: {tool.reason(error)}")

        if "uid" in attributes:
            attempt("owner", asyncssh.SFTPAttrs(uid=attributes["uid"], gid=attributes["gid"]))
        problems += [f"{tool.printable(key)}: not over SFTP" for key in sorted(attributes.get("xattrs", {}))]
        made = asyncssh.SFTPAttrs()  # behind the owner, who takes bits of the mode
        if "mode" in attributes and kind != "link":
            made.permissions = attributes["mode"]
        if "mtime" in attributes:
            made.atime, made.mtime = (value // 10**9 for value in tool.times(attributes))
            if min(made.atime, made.mtime) < 0 or max(made.atime, made.mtime) >= 1 << 32:
                problems.append("times: SFTP knows none before 1970 and none after 2106")
                made.atime = made.mtime = None
        if made.permissions is not None or made.mtime is not None:
            attempt("mode and times", made)
        return problems

    def put(self, folder: bytes, name: str, final: str, replace: bool) -> None:
        old, new = posixpath.join(folder, tool.raw(name)), posixpath.join(folder, tool.raw(final))
        if replace:
            self._ask(lambda client: client.posix_rename(old, new))
            return
        try:
            self._ask(lambda client: client.rename(old, new))  # refused by the server where something stands there
        except OSError:
            if self.look(folder, final)[0]:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            raise

    def remove(self, folder: bytes, name: str) -> None:
        try:
            self._ask(lambda client: client.remove(posixpath.join(folder, tool.raw(name))))
        except FileNotFoundError:
            pass


_ERRORS = {
    sftp.FX_NO_SUCH_FILE: errno.ENOENT, sftp.FX_NO_SUCH_PATH: errno.ENOENT,
    sftp.FX_PERMISSION_DENIED: errno.EACCES, sftp.FX_FILE_ALREADY_EXISTS: errno.EEXIST,
    sftp.FX_NO_SPACE_ON_FILESYSTEM: errno.ENOSPC, sftp.FX_QUOTA_EXCEEDED: errno.EDQUOT,
    sftp.FX_OP_UNSUPPORTED: errno.EOPNOTSUPP, sftp.FX_WRITE_PROTECT: errno.EROFS,
}  # fmt: skip


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of a connection that broke many answers are not waited for any more."""
    if not isinstance(context.get("exception"), _GONE):
        loop.default_exception_handler(context)


async def _all_ended(connection: asyncssh.SSHClientConnection | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if connection is not None:
        connection.abort()
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _ended(connection: asyncssh.SSHClientConnection) -> None:
    connection.abort()
    await connection.wait_closed()


def _as_oserror(error: asyncssh.SFTPError) -> OSError:
    """What Python would raise for it here; the server's own words where there is no number for it."""
    number = _ERRORS.get(error.code)
    if number is not None:
        return OSError(number, os.strerror(number))  # of the subclass that belongs to it
    return OSError(errno.EIO, f"the server says: {tool.printable(error.reason)[:200] or error.code}")


def _words(error: BaseException) -> str:
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return str(tool.printable(str(text)))[:200]
