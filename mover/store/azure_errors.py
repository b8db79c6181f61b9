# SPDX-License-Identifier: Apache-2.0
"""What Azure answers, in the words of `mover.errors`: by its error code, then by its status.

Only an answer of the blob service counts as "not there": a proxy's 404 page, or a container that is missing, is no
proof of anything. The service's texts are not passed on (they quote signatures), nor are the SDK's (they quote URLs).
Source: Microsoft's "Blob service error codes" and "Common REST API error codes".
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

from mover.errors import (
    AccessDenied,
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    ObjectExists,
    ObjectNotFound,
    SasExpired,
    ShortObject,
    StoreError,
    StoreUnavailable,
)
from mover.store.patience import RetryLater, TooSlow

_BY_CODE: dict[str, tuple[type[StoreError], str]] = {
    "BlobNotFound": (ObjectNotFound, "no such object"),
    "BlobAlreadyExists": (ObjectExists, "the name is taken"),
    "UnauthorizedBlobOverwrite": (ObjectExists, "the name is taken"),
    "ConditionNotMet": (ConditionFailed, "the record was written since its ETag was read"),
    "TargetConditionNotMet": (ConditionFailed, "the record was written since its ETag was read"),
    "InvalidRange": (ShortObject, "the object ends before the range that was asked for"),
    "LeaseAlreadyPresent": (LeaseConflict, "another holder's lease is active"),
    "LeaseIdMissing": (LeaseConflict, "another holder's lease is active"),
    "LeaseIsBreakingAndCannotBeAcquired": (LeaseConflict, "another holder's lease is being broken"),
    "Md5Mismatch": (StoreUnavailable, "the content was damaged on its way to the store"),
    "Crc64Mismatch": (StoreUnavailable, "the content was damaged on its way to the store"),
    "OperationTimedOut": (TooSlow, "the store did not finish in time"),
    "ServerBusy": (StoreUnavailable, "the store is busy"),
    "InternalError": (StoreUnavailable, "the store failed"),
    "AccountBeingCreated": (StoreUnavailable, "the storage account is being made"),
    "ContainerBeingDeleted": (StoreUnavailable, "the container is being deleted"),
    "BlobImmutableDueToPolicy": (AccessDenied, "the object is locked by an immutability policy"),
    "PublicAccessNotPermitted": (AccessDenied, "the store asks for a credential"),
    "AccountIsDisabled": (AccessDenied, "the storage account is disabled"),
} | dict.fromkeys(
    (
        *("LeaseLost", "LeaseNotPresentWithBlobOperation", "LeaseIdMismatchWithBlobOperation", "LeaseAlreadyBroken"),
        *("LeaseIdMismatchWithLeaseOperation", "LeaseNotPresentWithLeaseOperation"),
        *("LeaseIsBrokenAndCannotBeRenewed", "LeaseIsBreakingAndCannotBeChanged"),
    ),
    (LeaseLost, "the lease named is not active on the record"),
)
_HINTS = {
    "ContainerNotFound": "make the container first, or check the URL; the account's owner makes containers",
    "BlobArchived": "the object is in the archive tier: retrieve it first",
    "BlobBeingRehydrated": "the object is on its way out of the archive tier: wait for that",
    "BlobImmutableDueToPolicy": "it can be deleted when its retention has ended",
    "AuthorizationPermissionMismatch": "the SAS or the identity's role lacks a permission; see docs/operations.md",
    "AuthorizationSourceIPMismatch": "the SAS is for another address than this worker's",
    "AuthorizationProtocolMismatch": "the SAS is for https only",
    "AuthorizationFailure": "the storage account's firewall may refuse this worker's network",
    "SnapshotsPresent": "somebody made snapshots of this blob: delete those first",
}
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_WORD = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_LONGEST_WAIT = 86_400.0  # seconds


def from_answer(name: str, status: int, headers: Mapping[str, str], sas_expiry: str = "") -> StoreError:
    """The error for an answer that is none of success. `headers` are looked up in lower case."""
    code = _word(headers, "x-ms-error-code")
    kind, what = _BY_CODE.get(code, (None, ""))
    if kind is None and status in (401, 403):
        kind, what = AccessDenied, "the store refused access"
    elif kind is None and status == 416:
        kind, what = ShortObject, "the object ends before the range that was asked for"
    elif kind is None and status in _PASSING:
        kind, what = StoreUnavailable, "the store failed in passing"
    kind, what = kind or StoreError, what or "the store refused the request"
    hint = _HINTS.get(code, "")
    if status == 403 and _has_passed(sas_expiry, headers.get("date", "")):
        kind, what, hint = SasExpired, f"the SAS expired at {sas_expiry}", ""
    request = _word(headers, "x-ms-request-id")
    what += f" ({status}{f' {code}' if code else ''}{f', request {request}' if request else ''})"
    if issubclass(kind, StoreUnavailable) and (seconds := _retry_after(headers)) > 0:
        return RetryLater(what, name, seconds)
    return kind(what, name, hint)


def _word(headers: Mapping[str, str], field: str) -> str:
    """A code or an id; nothing for what is none: whoever is in between may put anything there, a URL too."""
    text = headers.get(field, "")
    return text if _WORD.match(text) else ""


def broken(name: str, error: BaseException) -> StoreError:
    """The error for a request that got no answer, or half of one."""
    chain: list[BaseException | None] = [
        error,
        error.__cause__,
        error.__context__,
        getattr(error, "inner_exception", None),
    ]
    if any("CERTIFICATE_VERIFY_FAILED" in str(link) for link in chain if link):
        return StoreError(
            "the store's certificate is not trusted", name,
            "set SSL_CERT_FILE or REQUESTS_CA_BUNDLE to the CA bundle of your proxy or private endpoint",
        )  # fmt: skip
    kind = TooSlow if any(isinstance(link, TimeoutError) for link in chain) else StoreUnavailable
    return kind(f"no whole answer from the store ({type(error).__name__})", name)


def number(text: str | None) -> int | None:
    """What a service writes as a number; None for anything else, and for what no size or time of Azure's is."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _retry_after(headers: Mapping[str, str]) -> float:
    for field, unit in (("retry-after-ms", 1000.0), ("x-ms-retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (count := number(headers.get(field, "").strip())) is not None:
            return min(count / unit, _LONGEST_WAIT)
    date = headers.get("retry-after", "")
    return min(max(0.0, seconds(date) - seconds(headers.get("date", ""))), _LONGEST_WAIT) if date else 0.0


def seconds(date: str) -> float:
    """An HTTP date as Unix seconds; 0.0 when it is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0


def _has_passed(expiry: str, date: str) -> bool:
    """Whether a SAS's `se` is before the store's own time."""
    import datetime

    try:
        moment = datetime.datetime.fromisoformat(expiry)
    except ValueError:
        return False
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp() <= seconds(date)
