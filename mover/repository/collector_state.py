# SPDX-License-Identifier: Apache-2.0
"""gc/state as sessions and readers see it (docs/format.md section 8). The collector that writes it comes later; the one write
here is the first, with the repository. Its absence is damage, never generation 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mover.errors import Damaged, MissingObject, ObjectNotFound
from mover.repository import signed_json
from mover.repository.names import COLLECTOR_STATE, PackName, parse_pack
from mover.repository.signed_json import member
from mover.store.base import Store

FORMAT, LIST_FORMAT = "data-mover collector", "data-mover list"


@dataclass(frozen=True, slots=True)
class CollectorState:
    """One reading of gc/state. A quarantined place is (pack, offset).

    `condemned_packs` are to die if nothing reaches them; `compacting_packs` are to be copied where kept maps reach them (I15).
    Sessions treat both alike.
    """

    generation: int
    write_id: str
    time: float
    owner_epoch: int
    condemned_points: frozenset[str] = frozenset()
    condemned_packs: frozenset[PackName] = frozenset()
    compacting_packs: frozenset[PackName] = frozenset()
    gone_points: frozenset[str] = frozenset()
    gone_packs: frozenset[PackName] = frozenset()
    forwards: Mapping[PackName, tuple[PackName, ...]] = field(default_factory=dict)
    quarantine: frozenset[tuple[PackName, int]] = frozenset()
    catalog_runs: tuple[str, ...] = ()
    folded: frozenset[str] = frozenset()
    points: frozenset[str] = frozenset()

    def forwarded(self, pack: PackName) -> list[PackName]:
        """All packs that forwards reach from `pack`, without itself, nearest first."""
        reached: list[PackName] = []
        queue = [pack]
        while queue:
            for target in self.forwards.get(queue.pop(0), ()):
                if target != pack and target not in reached:
                    reached.append(target)
                    queue.append(target)
        return reached

    def encode(self) -> bytes:
        """The object's bytes, every list inline."""
        return signed_json.dump(
            FORMAT,
            {
                "write_id": self.write_id,
                "generation": self.generation,
                "time": self.time,
                "owner_epoch": self.owner_epoch,
                "condemned": {
                    "points": sorted(self.condemned_points),
                    "packs": _texts(self.condemned_packs),
                    "compacting": _texts(self.compacting_packs),
                },
                "gone": {"points": sorted(self.gone_points), "packs": _texts(self.gone_packs)},
                "forwards": {str(pack): _texts(targets) for pack, targets in self.forwards.items()},
                "quarantine": [[str(pack), offset] for pack, offset in sorted(self.quarantine)],
                "catalog": {"runs": list(self.catalog_runs), "folded": sorted(self.folded)},
                "points": sorted(self.points),
            },
        )


def read_state(store: Store) -> CollectorState:
    """The state as it is now; MissingObject when there is none."""
    try:
        data = store.read_record(COLLECTOR_STATE).data
    except ObjectNotFound:
        hint = "do not write to this repository; repair it first"
        raise MissingObject("the collector's state is missing", COLLECTOR_STATE, hint) from None
    value = signed_json.load(FORMAT, data, COLLECTOR_STATE)

    def resolve(part: Any) -> Any:
        if not isinstance(part, dict) or set(part) != {"object"}:
            return part
        try:
            return signed_json.load(LIST_FORMAT, store.read_all(part["object"]), part["object"])["value"]
        except ObjectNotFound:
            raise MissingObject("a list that the collector's state names is missing", part["object"]) from None

    try:
        condemned, gone = resolve(value["condemned"]), resolve(value["gone"])
        catalog = resolve(value["catalog"])
        return CollectorState(
            generation=member(value, "generation", int),
            write_id=member(value, "write_id", str),
            time=member(value, "time", int, float),
            owner_epoch=member(value, "owner_epoch", int),
            condemned_points=frozenset(resolve(condemned["points"])),
            condemned_packs=_packs(resolve(condemned["packs"])),
            compacting_packs=_packs(resolve(condemned["compacting"])),
            gone_points=frozenset(resolve(gone["points"])),
            gone_packs=_packs(resolve(gone["packs"])),
            forwards={
                parse_pack(pack): tuple(parse_pack(target) for target in targets)
                for pack, targets in resolve(value["forwards"]).items()
            },
            quarantine=frozenset((parse_pack(pack), int(offset)) for pack, offset in resolve(value["quarantine"])),
            catalog_runs=tuple(resolve(catalog["runs"])),
            folded=frozenset(resolve(catalog["folded"])),
            points=frozenset(resolve(value["points"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged("the collector's state is malformed", f"{COLLECTOR_STATE}: {error}") from None


def _texts(packs: Iterable[PackName]) -> list[str]:
    return sorted(str(pack) for pack in packs)


def _packs(texts: Iterable[str]) -> frozenset[PackName]:
    return frozenset(parse_pack(text) for text in texts)
