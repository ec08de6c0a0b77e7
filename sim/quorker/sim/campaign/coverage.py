"""What a campaign must have come to, or its silence proves little: the list of rare situations that hide bugs.

Each is noted where it happens (`World.note`). Who gates on this list is the campaign; a scenario names single items.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final

from quorker.sim.cases.expansion import PROFILES, Profile
from quorker.sim.world.naming import NAMES
from quorker.sim.world.randomness import MILLION


def anywhere(_: Profile) -> bool:
    return True


def bare(profile: Profile) -> bool:
    """Members without a job store."""
    return not profile.jobs


def stores(profile: Profile) -> bool:
    """Members with a job store, and clients."""
    return profile.jobs


def churn(profile: Profile) -> bool:
    """Membership changes."""
    return profile.churn_ppm > 0


def keeps_members(profile: Profile) -> bool:
    """Some runs never change who is a member."""
    return profile.churn_ppm < MILLION


def damage(profile: Profile) -> bool:
    """Disks lose what was synced."""
    return profile.damage_max > 0


def files(profile: Profile) -> bool:
    """All disks are files."""
    return profile.files_ppm == MILLION


@dataclass(frozen=True, slots=True)
class Situation:
    """`where`: whether runs of a profile can come to it."""

    description: str
    where: Callable[[Profile], bool] = anywhere


_PLACES: Final = {
    "ForwardProposal": bare,
    "ForwardRead": bare,
    "ReadResponse": bare,
    "RejoinRequest": damage,
    "RejoinResponse": damage,
}
_NEVER_SENT: Final = "ForwardTransfer"  # transfers are asked of leaders

SITUATIONS: Final[dict[str, Situation]] = {
    "leader deposed with entries under way": Situation(
        "a leader loses its office while entries of it are not committed"
    ),
    "leader stepped down without a quorum": Situation(
        "a leader that hears no majority steps down by itself (CheckQuorum)"
    ),
    "vote split": Situation("two candidates of one term, and no leader of it"),
    "pre-vote rejected": Situation("a member would not vote for one that asks before it campaigns"),
    "older entry committed by a newer term": Situation(
        "entries of a dead leader are committed through its successor's (figure 8)"
    ),
    "truncated several": Situation("a member drops more than one entry that was never committed", bare),
    "truncated more than one append": Situation(
        "the dropped suffix is longer than what one append carries", bare
    ),
    "snapshot saved": Situation("a member saves a snapshot and trims its log"),
    "snapshot installed": Situation("a member that is too far behind takes its leader's snapshot"),
    "snapshot installed during a partition": Situation("it does so while links are cut"),
    "crashed while saving a snapshot": Situation("a process dies while its snapshot is being written"),
    "fsync failed": Situation("a disk fails an fsync, and the process ends"),
    "restarted within 5 ms": Situation("a process is back before anybody has noticed"),
    "leader left the configuration": Situation("a leader commits the change that removes itself", churn),
    **{
        f"duplicate of {name}": Situation(
            f"a {name} that the network delivers twice", _PLACES.get(name, anywhere)
        )
        for name in NAMES.values()
        if name != _NEVER_SENT
    },
    "crashed while joint": Situation("a member dies between two configurations", churn),
    "leader gave way with a stalled disk": Situation("a leader whose disk stalls leads no longer"),
    "job lost with its worker": Situation("a session ends with jobs in its hands", stores),
    "job quarantined": Situation("a job has lost its worker so often that it may be what kills it", stores),
    "lease not renewed in time": Situation("a living holder stops, because its lease may be over", stores),
    "overlap with a frozen holder": Situation(
        "a frozen process still believes to hold what another was given", stores
    ),
    "limit of a key reached": Situation(
        "as many jobs of a key are in workers' hands as its limit says", stores
    ),
    "started after waiting for its key": Situation(
        "a job starts that was made when its key was full", stores
    ),
    "rate of a key used up": Situation(
        "as many jobs of a key have started as its rate and burst allow", stores
    ),
    "job expired": Situation("a job is deleted because it was not started in time", stores),
    "stale report refused": Situation("a report by a token that is not the live one is refused", stores),
    "answer lost with its line": Situation("what a member answered never arrived at the client", stores),
    "retry applied once": Situation("a command is in the log twice, and took effect once", stores),
    "clock set back while jobs run": Situation("a wall clock goes backwards while leases are held", stores),
    "client gives up on a member": Situation("a client turns to another member", stores),
    "grant learned too late": Situation("a client learns of a job when its lease may be over", stores),
    "callback of a batch granted": Situation("a job starts that has waited for a batch of others", stores),
    "batch of jobs refused": Situation("a batch of jobs cannot be made, and nothing of it is", stores),
    "batch succeeded after it had failed": Situation(
        "a member that had failed is tried again, and the batch succeeds", stores
    ),
    "answer told its age": Situation("a member that is asked from memory knows how old its state is", stores),
    "slot fired by the next leader": Situation(
        "the slots of a recurring job are fired by leaders of different terms", stores
    ),
    "missed slots made up for": Situation("slots of a recurring job were missed and are dealt with", stores),
    "step of a schedule that no longer fits": Situation(
        "a recurring job is changed between a leader's finding it due and the log", stores
    ),
    "stable leader kept": Situation(
        "a follower is cut off in a healthy cluster, and comes back", keeps_members
    ),
    "leader succeeded in a steady cluster": Situation(
        "a deaf or dead leader is followed by another", keeps_members
    ),
    "disk went back": Situation("a member restarts on a disk that has lost what was synced", damage),
    "has its say again": Situation("it has learned enough to vote again", damage),
    "torn tail cut": Situation("a recovery drops a write that a power cut tore", files),
    "recovery interrupted": Situation("a machine dies again while it recovers", files),
    "recovery refused": Situation("a damaged disk is detected, and its member does not start", files),
}


def wanted_of(profiles: Iterable[str]) -> dict[str, str]:
    """What a campaign over these profiles must come to, with a description of each."""
    chosen = [PROFILES[name] for name in profiles]
    return {
        name: situation.description
        for name, situation in SITUATIONS.items()
        if any(situation.where(profile) for profile in chosen)
    }


def never_seen(profiles: Iterable[str], seen: Container[str]) -> dict[str, str]:
    """What a campaign over these profiles should have come to and did not."""
    return {name: text for name, text in wanted_of(profiles).items() if name not in seen}
