# SPDX-License-Identifier: Apache-2.0
"""Every rule of the session's half is needed: a test-only switch breaks it, and in a fixed scenario the world sees the loss.

The same scenario with the rule on ends well. What only the model can show (the collector's half, and I14's "gone is read before
the index" over all interleavings) is in `tests/world/model`: its switches `gc_before_rest`, `gone_list`, `ack_after_own`,
`lapsed_counts`, `second_mark`, `verdict_fenced`, `condemn_points`, `fwd_live`, `copy_after_freeze`, `comp_acquit`, `heal_fwd`,
`orphan_path`, `points_by_etag`.
"""

from __future__ import annotations

import pytest

from tests.world.moves import walk
from tests.world.mutants import SWITCHES
from tests.world.scenarios import SCENARIOS
from tests.world.world import Violation, World

LOSSES = {
    "i1_write_without_lease": ["zombie_commits", "zombie_commits_what_was_collected"],
    "i2_commit_before_packs": ["two_backups"],
    "i2_checkpoint_before_packs": ["dedupe_against_a_checkpoint"],
    "i2_gone_entries_count": ["dedupe_against_the_gone"],
    "i7_hold_names_nothing": ["point_expires_under_a_reader"],
    "i7_hold_reads_state_first": ["hold_is_made_beside_a_verdict"],
    "i7_dying_point_is_held": ["dying_point_is_asked_for"],
    "i8_quarantined_places_are_handed_out": ["chunk_rots_and_is_wanted_by_another"],
    "i8_parents_places_are_kept": ["chunk_rots_and_the_next_backup_heals_it"],
    "i8_no_look_before_commit": ["chunk_rots_while_a_session_uses_it"],
    "i8_forwards_are_not_read": ["frames_are_moved"],
    "i10_owner_is_not_looked_at": ["new_owner"],
    "i11_conflict_is_success": ["zombie_commits"],
    "i11_conflict_is_loss": ["answer_to_a_commit_is_lost"],
    "i12_names_without_incarnation": ["pack_arrives_after_a_take_over"],
    "i13_uses_are_not_listed": ["used_pack_loses_its_point"],
    "i13_adopter_forgets_uses": ["adopters_used_pack_loses_its_point"],
    "i13_parent_is_not_named": ["parent_expires_under_its_child"],
    "i14_state_before_record": ["parent_is_gone_before_the_record"],
    "i14_parent_before_state": ["parent_is_condemned_when_the_session_opens", "parent_is_gone_before_the_record"],
    "i14_acknowledged_before_switch": ["chunk_is_found_while_acknowledging"],
    "i14_acknowledged_without_switch": ["chunk_is_found_after_acknowledging"],
    "i14_view_does_not_grow": ["pack_is_deleted_and_forgotten"],
}


FOUND_BY_WALKS = [
    "i1_write_without_lease",
    "i2_commit_before_packs",
    "i2_checkpoint_before_packs",
    "i2_gone_entries_count",
    "i11_conflict_is_success",
    "i11_conflict_is_loss",
    "i12_names_without_incarnation",
    "i14_parent_before_state",
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_ends_well(name: str) -> None:
    with World() as world:
        SCENARIOS[name](world)


@pytest.mark.parametrize(("switch", "scenario"), [(switch, name) for switch in LOSSES for name in LOSSES[switch]])
def test_broken_rule_is_found(switch: str, scenario: str) -> None:
    with SWITCHES[switch](), pytest.raises(Violation), World() as world:
        SCENARIOS[scenario](world)


def test_write_without_lease_loses_bytes() -> None:
    """I1 once more, and nobody looks who wrote what: the zombie's point is there, its packs are not."""
    loss = "does not read back"
    with SWITCHES["i1_write_without_lease"](), pytest.raises(Violation, match=loss), World(watch_fences=False) as world:
        SCENARIOS["zombie_commits_what_was_collected"](world)


@pytest.mark.slow
@pytest.mark.parametrize("switch", FOUND_BY_WALKS)
def test_broken_rule_is_found_by_walks(switch: str) -> None:
    """Without a scenario, by chance. The other switches need an order of requests that 60 walks did not meet."""

    def search() -> None:
        for seed in range(300):
            walk(seed)

    with SWITCHES[switch](), pytest.raises(Violation):
        search()


def test_every_switch_has_its_loss() -> None:
    assert set(LOSSES) == set(SWITCHES)
