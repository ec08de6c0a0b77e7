"""The names of all oracles, with what each of them watches. The checks themselves stand where they look.

A test compares this table with the violations that the sources can raise.
"""

from __future__ import annotations

from typing import Final

ORACLES: Final[dict[str, str]] = {
    # Raft
    "election safety": "a term has at most one leader",
    "one vote": "a member votes for one candidate in a term, across restarts",
    "no say": "a member that may have forgotten something says nothing that is counted",
    "leader is a voter": "whoever leads is a voter of its own configuration",
    "leader completeness": "a leader holds every entry committed in an earlier term",
    "log matching": "an index and a term name one entry with one history, on every disk",
    "state-machine safety": "no two members commit or apply different entries at one index",
    "only leaders commit": "nothing is committed before a leader committed it",
    "own-term commit": "a leader counts copies only of entries of its own term",
    "commit on durable majority": "what is committed is on the disks of a majority of each voter set",
    "commit within log": "a commit index never passes the end of the log",
    "log has no gaps": "a leader has every entry that it commits",
    "monotonic term": "a member's term never goes back",
    "monotonic commit": "a member's commit index never goes back",
    "monotonic apply": "a snapshot is only installed ahead of what was applied",
    "apply in order": "entries are applied one after the other, without a gap",
    "apply only committed": "nothing is applied before it is committed",
    "apply only durable": "nothing is applied that the own disk lacks",
    "linearizable read": "a read sees everything committed before it was asked for",
    "honest refusal": "what a member refused to append never commits",
    "replicas are equal": "the machine at an index is the same everywhere, also in snapshots",
    # disk and driver
    "durable before sent": "what a message promises is on disk before it leaves",
    "persist lane": "records reach the disk in an order that makes sense",
    "snapshot bytes": "a snapshot that is recorded has arrived",
    "wire": "what arrives as bytes of the real protocol is what was sent, whole and of one connection",
    "durability": "committed entries and given votes survive every crash and power cut",
    "acknowledged writes survive": "a recovery gives back what was acknowledged, perhaps with what was under way",
    "corruption is never served": "nothing is read from files that was not written",
    "intact disks are read": "a recovery refuses, or finds fault with, damaged disks only",
    "damage is left as it is": "files that could not be read are not changed",
    "incarnations grow": "each opening of a directory has its own number",
    "the mark survives": "who may have forgotten promises knows that after every crash, until it has its say again",
    "undamaged disks lose nothing": "no member believes that its disk went back when nothing befell it",
    "disk lane": "the storage can do whatever it is asked for",
    # jobs, leases, locks, time
    "acknowledged is not lost [J1]": "an acknowledged job is in the store",
    "no job from nowhere [J2]": "every job was ordered by a client",
    "one holder [J3]": "a job has one live token",
    "one holder [J10]": "a lock has one holder",
    "completed once [J7]": "one completion of a job is accepted",
    "fenced [T4]": "a report by an old token is refused",
    "no overlap [T3]": "who stops at its local deadline never overlaps with the next holder, in true time",
    "tokens grow [C6]": "tokens of jobs and of each lock only grow",
    "applied once [C2]": "a command applies once and is answered alike each time",
    "answers in order": "each command of an entry has its answer",
    "honest refusal [C3]": "a job that was refused for certain never appears",
    "replicas are equal [C5]": "outcomes, stores and snapshots are byte-equal on all members",
    "entries make sense": "no entry of our own making is malformed",
    "time goes on [T1]": "log time never goes back",
    "log time is slow enough [T1]": "log time runs at most as fast as the fastest clock",
    "not before it is due [T6]": "nothing scheduled runs early",
    "not before its time [T2]": "a session that expires was silent for its whole time to live",
    "one job per key": "a unique key stands for one job until that has ended",
    "started once": "nobody begins what it was granted a second time",
    "store invariant": "what the store keeps beside its records is what they say",
    # the run as a whole
    "liveness": "when all faults have ended, everything works again in time",
    "event budget": "a run ends: nothing spins",
    "fatal": "no member finds itself in an impossible state",
    "invariant": "the core's own invariants hold after every step",
    "exception": "the core raises nothing, whatever it is fed",
}
