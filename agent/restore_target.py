# SPDX-License-Identifier: Apache-2.0
"""From what a command or a verb says of the way to the original machine to that way, open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.opening import Settings
from agent.protocol import OverSftp, ThroughFolder, ThroughTool
from flr.restore.mailbox import FolderMailbox, Mailbox
from flr.restore.target import Target
from flr.restore.through_tool import ToolTarget

if TYPE_CHECKING:
    from mover.store.azure_credentials import Credential


def open_target(restore: ThroughTool | ThroughFolder | OverSftp, job: str, limit: float, settings: Settings) -> Target:
    """The caller closes it. `limit`: seconds after which the session ends. What its mailbox cannot be made for, and a secret that
    cannot be had, is raised here; whether the machine is reached, its state tells."""
    until = settings.clock.wall() + limit
    if isinstance(restore, OverSftp):
        from flr.restore.sftp import Login, SftpTarget  # a session without it does not pay for SSH

        password = settings.secret(restore.password) if restore.password is not None else ""
        key = settings.secret(restore.key) if restore.key is not None else ""
        return SftpTarget(Login(restore.host, restore.port, restore.user, restore.host_key, password, key))
    if isinstance(restore, ThroughFolder):
        mailbox: Mailbox = FolderMailbox(Path(restore.path))
    else:
        mailbox = _in_an_account(restore, job, until, settings)
    target = ToolTarget(mailbox, settings.clock, until)
    try:
        target.open()
    except BaseException:
        target.close()
        raise
    return target


def _in_an_account(account: ThroughTool, job: str, until: float, settings: Settings) -> Mailbox:
    from agent.restore_mailbox import AzureMailbox  # a session without it does not pay for Azure's modules
    from mover.store.azure_credentials import Sas

    if account.sas is not None:
        credential: Credential = Sas(settings.secret(account.sas).lstrip("?"))
    else:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    tool_sas = settings.secret(account.tool_sas) if account.tool_sas is not None else None
    return AzureMailbox(
        account.blobs,
        account.queues,
        credential,
        job,
        until,
        settings.clock,
        tool_sas=tool_sas,
        cancel=settings.cancel,
    )
