"""Everything one member remembers, and the few things that every part of the core does with it.

The parts (`election`, `replication`, `membership`, `proposals`, `reads`, `snapshots`, `persistence`) are functions
over this record; `core.Raft` is this record with the inputs. Nothing here decides anything.
"""

from __future__ import annotations

from typing import Final

from quorker.core.raft import confchange, roles
from quorker.core.raft.confchange import Configuration
from quorker.core.raft.config import DurableState, RaftConfig
from quorker.core.raft.effects import ConfigChanged, Effect, Fatal, Role, Send
from quorker.core.raft.log import RaftLog
from quorker.core.raft.messages import (
    ConfState,
    Forgotten,
    HardState,
    Message,
    NodeId,
    SnapshotMeta,
)
from quorker.core.raft.persistence import PersistenceLane
from quorker.core.raft.progress import ProgressMap, ProgressTemplate
from quorker.core.raft.rejoining import Rejoining, name_of_life
from quorker.core.raft.roles import Follower, RoleRecord

READS_PER_LIFE: Final = 1 << 40
INCARNATIONS: Final = 1 << 22  # together they fit a signed 64-bit number


class RaftState:
    """One member. Read everything, assign nothing: the attributes without underscore are the views of `Raft`.

    `applying_index`: the last index offered to the state machine. `config_index`: the last entry whose
    configuration change has taken effect. `installing`: a snapshot on its way into the state machine.
    `silent_until`: before that no vote is given. `timer_base`: when the election timer, or a leader's quorum check,
    last started. `is_silent`: this member takes no more part, as `disk_failure` or `broken` says.
    `rejoining`: why this member has no say, and what it still waits for; None while it has one.
    """

    __slots__ = (
        "acting_as",
        "applied_index",
        "applying_bytes",
        "applying_index",
        "applying_paused",
        "broken",
        "commit_index",
        "conf_state",
        "config",
        "config_index",
        "configuration",
        "disk_failure",
        "disk_stalled",
        "effects",
        "installing",
        "is_silent",
        "lane",
        "leader_contact",
        "log",
        "node_id",
        "now",
        "peers",
        "progress",
        "randomized_election_timeout",
        "reads_forwarded",
        "rejoining",
        "sessions",
        "silent_until",
        "snapshot",
        "term",
        "timeout_draws",
        "timer_base",
        "voted_for",
    )

    def __init__(self, config: RaftConfig, durable: DurableState, now: int) -> None:
        config.validate()
        hard_state, snapshot = durable.hard_state, durable.snapshot
        self.config = config
        self.node_id = config.node_id
        self.now = now
        self.effects: list[Effect] = []
        self.acting_as: RoleRecord = Follower()
        self.term = hard_state.term
        self.voted_for = hard_state.voted_for
        self.log = RaftLog(snapshot.index, snapshot.term, durable.entries)
        self.snapshot = snapshot
        self.applied_index = max(durable.applied_index, snapshot.index)
        # The stored commit index is a hint: after a torn tail it may name entries that are gone.
        hint = min(hard_state.commit_index, self.log.last_index)
        self.commit_index = max(hint, self.applied_index)
        self.lane = PersistenceLane(self.log.last_index, hard_state)
        self._start_applying()
        self._start_timers()
        # What we promised to a leader before a restart is forgotten, so under leases we outwait it.
        is_bound = config.lease_reads and hard_state.term > 0
        self.silent_until = now + config.election_timeout if is_bound else now
        self.sessions = 0
        self.reads_forwarded = (config.incarnation % INCARNATIONS) * READS_PER_LIFE
        self.broken = self.disk_failure = ""
        self.is_silent = False
        self.rejoining: Rejoining | None = None
        if hard_state.forgotten:
            self.rejoining = Rejoining(hard_state.forgotten, name_of_life(config))
        self.disk_stalled = False
        self.peers: tuple[NodeId, ...] = ()
        self.progress: ProgressMap = {}
        self._use(confchange.restore(snapshot.conf_state, self.progress_template()))

    def _start_applying(self) -> None:
        self.applying_index = self.applied_index
        self.applying_bytes = 0
        self.applying_paused = False
        self.installing: SnapshotMeta | None = None
        self.config_index = self.snapshot.index

    def _start_timers(self) -> None:
        self.timer_base = self.leader_contact = self.now
        self.timeout_draws = 0
        self.randomized_election_timeout = 0
        roles.randomize_election_timeout(self)

    # Views

    @property
    def role(self) -> Role:
        return self.acting_as.role

    @property
    def leader(self) -> NodeId:
        """Who leads this term, as far as this member knows; NOBODY if it does not."""
        return self.acting_as.leader

    @property
    def first_index(self) -> int:
        return self.log.first_index

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def stable_index(self) -> int:
        """Up to here the log is durable on this member."""
        return self.lane.stable

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.voted_for, self.commit_index, self._forgotten_durably)

    @property
    def _forgotten_durably(self) -> Forgotten:
        """What the disk is to say: that this member has its say again stands there before the member uses it."""
        waits = self.rejoining
        return Forgotten.NOTHING if waits is None or waits.is_over else waits.forgotten

    @property
    def rejoin_name(self) -> int:
        """What marks every answer of this life as not to be counted; 0 for a member that has its say."""
        return 0 if self.rejoining is None else self.rejoining.name

    @property
    def last_leader_contact(self) -> int:
        """When this member last heard from a leader, in units of `now`: its start if never, now if it leads."""
        return self.now if self.leader == self.node_id else self.leader_contact

    # Shared actions

    def send(self, message: Message) -> None:
        """Say something that rests on nothing that is not durable yet."""
        self.effects.append(Send(message.to, message))

    def hold(self, message: Message) -> None:
        """Say something once everything that is not durable yet has become so."""
        self.lane.held.append(Send(message.to, message))

    def fatal(self, invariant: str, detail: str) -> None:
        """An invariant of our own is broken: say so once, and take no more part."""
        if not self.broken:
            self.broken = invariant
            self.is_silent = True
            self.effects.append(Fatal(invariant, detail))

    def new_session(self) -> int:
        """Name a new stretch of membership. Unique within a term, as answers of other terms never count."""
        self.sessions += 1
        return self.sessions

    def progress_template(self) -> ProgressTemplate:
        config = self.config
        return ProgressTemplate(
            self.log.last_index, config.max_inflight_messages, config.max_inflight_bytes, self.new_session()
        )

    def use_members(self, members: confchange.Members, index: int) -> None:
        """Take over a configuration with its progress, as of the entry at `index`."""
        self._use(members)
        self.effects.append(ConfigChanged(self.conf_state, index))

    def _use(self, members: confchange.Members) -> None:
        self.configuration: Configuration
        self.configuration, self.progress = members
        self.conf_state: ConfState = confchange.to_conf_state(self.configuration)
        self.peers = tuple(sorted(peer for peer in self.progress if peer != self.node_id))

    def commit_to(self, index: int) -> None:
        """Entries up to `index` are committed. Never lowers the commit index."""
        self.commit_index = max(self.commit_index, index)

    @property
    def has_own_term_commit(self) -> bool:
        """Whether an entry of the current term is committed (§5.4.2, §6.4 of the dissertation)."""
        return self.log.term_at(self.commit_index) == self.term

    @property
    def is_voter(self) -> bool:
        return self.node_id in self.configuration.voters

    @property
    def decides_alone(self) -> bool:
        return self.is_voter and self.configuration.voters.is_single
