"""How two processes prove to each other who they are, before anything else is said: a pure state machine per side.

    dialling side                              accepting side
    HELLO     role, identity, nonce      ->
                                         <-    CHALLENGE  protocol version, nonce
    PROOF     HMAC(secret, so far)       ->
                                         <-    WELCOME    identity, HMAC(secret, so far)      or REFUSED  reason

Each proof covers everything said so far, with a label for its direction, so that none can be replayed or sent back.
Only after the proof are identities judged and named. Without a secret (loopback, TLS, a private socket) the same
messages carry no proofs. Connected means that WELCOME was read: with TLS 1.3 a refused client's handshake succeeds.
Randomness arrives as arguments; sockets, deadlines and certificates are the driver's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from quorker.core.errors import Busy, ConfigurationError, IdentityMismatch, ProtocolError, QuorkerError
from quorker.core.raft.messages import NOBODY, NodeId
from quorker.core.wire.frames import Outgoing
from quorker.core.wire.records import INT_MAX, list_of, pack, unpack
from quorker.core.wire.requests import Role

MAGIC: Final = b"quorker\x00"
PROTO_MIN: Final = 1
PROTO_MAX: Final = 1
ID_BYTES: Final = 16
INSTANCE_BYTES: Final = 8
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
SECRET_BYTES_MIN: Final = 16
SECRETS_MAX: Final = 2  # the current one and, while it is being replaced, the other one
HELLO_BYTES_MAX: Final = 512
NAME_MAX: Final = 64
DETAIL_MAX: Final = 256

HELLO: Final = 1
CHALLENGE: Final = 2
PROOF: Final = 3
WELCOME: Final = 4
REFUSED: Final = 5

_DIALLER_PROOF: Final = b"quorker dialling side proves"
_ACCEPTOR_PROOF: Final = b"quorker accepting side proves"
_DIALLER_FRAMES: Final = b"quorker frames of the dialling side"
_ACCEPTOR_FRAMES: Final = b"quorker frames of the accepting side"


class Reason(Enum):
    """Why a connection is refused. The values travel; add, never change."""

    VERSION = "protocol version"
    BAD_PROOF = "bad proof"
    WRONG_CLUSTER = "wrong cluster"
    WRONG_NODE = "wrong node"
    WRONG_ROLE = "wrong role"
    WRONG_CERTIFICATE = "wrong certificate"
    UNKNOWN_MEMBER = "unknown member"
    DUPLICATE_NODE = "duplicate node"
    ROLLED_BACK = "rolled back"
    TOO_MANY_CONNECTIONS = "too many connections"


_IDENTITY_REASONS: Final = (
    Reason.WRONG_CLUSTER,
    Reason.WRONG_NODE,
    Reason.WRONG_CERTIFICATE,
    Reason.UNKNOWN_MEMBER,
    Reason.DUPLICATE_NODE,
    Reason.ROLLED_BACK,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    detail: str

    def to_error(self, where: str) -> QuorkerError:
        """The error to raise on the side whose connection to `where` was refused."""
        text = f"{where}: {self.reason.value}: {self.detail}"
        if self.reason is Reason.TOO_MANY_CONNECTIONS:
            return Busy(text, retry_after_ms=1_000)
        return IdentityMismatch(text) if self.reason in _IDENTITY_REASONS else ConfigurationError(text)


@dataclass(frozen=True, slots=True)
class Party:
    """Who speaks. `cluster_id` and `dir_uuid` have 16 bytes each; both are empty, and the numbers 0, where unknown.

    `incarnation` grows with each start from the same directory; `instance` are 8 random bytes of the running process.
    `rejoins`: it says itself that its directory may not be what this node left behind, and asks for no vote before it
    is up to date; so a directory nobody knows, or an older one, is no mistake.
    """

    cluster_id: bytes = b""
    node_id: NodeId = NOBODY
    dir_uuid: bytes = b""
    incarnation: int = 0
    instance: bytes = b""
    rejoins: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """What the dialling side says first. `to` is the node it means to reach (0: any). `name` is for people."""

    role: Role
    party: Party
    nonce: bytes
    to: NodeId = NOBODY
    name: str = ""
    proto_min: int = PROTO_MIN
    proto_max: int = PROTO_MAX


@dataclass(frozen=True, slots=True)
class Established:
    """The result, on either side. The keys are None where frames carry no tags."""

    proto: int
    role: Role  # of the dialling side
    remote: Party
    name: str  # of the dialling side
    connection: int  # numbered by the accepting side
    send_key: bytes | None
    receive_key: bytes | None


Admit: TypeAlias = Callable[[Hello], Refusal | None]
"""Judges a proved HELLO: None lets it in."""


def cluster_id_of(name: str) -> bytes:
    """The 16 bytes by which members and clients of the cluster of this name know each other."""
    return hashlib.sha256(b"quorker cluster\x00" + name.encode()).digest()[:ID_BYTES]


def check_secrets(secrets: Sequence[bytes]) -> tuple[bytes, ...]:
    """The secrets as they are used. Raises `ConfigurationError` naming the limit."""
    if len(secrets) > SECRETS_MAX:
        raise ConfigurationError(
            f"{len(secrets)} secrets are given: at most {SECRETS_MAX} are accepted at once"
        )
    for secret in secrets:
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigurationError(
                f"the secret has {len(secret)} bytes: use at least {SECRET_BYTES_MIN} random bytes, "
                "for example from `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
    return tuple(secrets)


class _Transcript:
    """Everything said so far, as one running hash; each part is framed so that no two transcripts look alike."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"quorker handshake")

    def add(self, kind: int, payload: bytes) -> None:
        self._hash.update(kind.to_bytes(1, "little") + len(payload).to_bytes(4, "little") + payload)

    def mac(self, secret: bytes, label: bytes) -> bytes:
        return hmac.digest(secret, label + b"\x00" + self._hash.digest(), "sha256")


class Dialler:
    """The dialling side: send `start()`, give each frame to `receive` and send what it returns, until `is_over`."""

    def __init__(
        self,
        hello: Hello,
        secrets: Sequence[bytes] = (),
        *,
        tags: bool = True,
        admit: Callable[[Party], Refusal | None] | None = None,
    ) -> None:
        """`tags`: frames carry tags after a proof (not needed inside TLS). `admit` judges who was reached."""
        self.established: Established | None = None
        self.refusal: Refusal | None = None
        self._hello = hello
        self._secrets = check_secrets(secrets)
        self._tags = tags
        self._admit = admit
        self._proto = 0
        self._awaited = CHALLENGE
        self._transcript = _Transcript()

    @property
    def is_over(self) -> bool:
        return self.established is not None or self.refusal is not None

    def start(self) -> Outgoing:
        payload = _pack_hello(self._hello)
        self._transcript.add(HELLO, payload)
        return HELLO, payload

    def receive(self, kind: int, payload: bytes | memoryview) -> Outgoing | None:
        """What to send next, if anything. Raises `ProtocolError`."""
        if self.is_over:
            raise ProtocolError("the handshake is over")
        data = bytes(payload)
        if kind == REFUSED:
            self.refusal = _unpack_refusal(data)
            return None
        if kind != self._awaited:
            raise ProtocolError(f"frame kind {kind} does not belong here in a handshake")
        if kind == CHALLENGE:
            return self._prove(data)
        self._finish(data)
        return None

    def _prove(self, payload: bytes) -> Outgoing:
        proto, nonce = list_of(unpack(payload), 2)
        if _number(proto) < self._hello.proto_min or proto > self._hello.proto_max:
            raise ProtocolError(f"the other side chose protocol version {proto}, which was not offered")
        _exactly(nonce, NONCE_BYTES)
        self._proto = proto
        self._transcript.add(CHALLENGE, payload)
        proof = pack([self._transcript.mac(secret, _DIALLER_PROOF) for secret in self._secrets])
        self._transcript.add(PROOF, proof)
        self._awaited = WELCOME
        return PROOF, proof

    def _finish(self, payload: bytes) -> None:
        body, proof = (_bytes(part) for part in list_of(unpack(payload), 2))
        party, connection = _unpack_welcome(body)
        self._transcript.add(WELCOME, body)
        secret = self._proven_by(proof)
        if self._secrets and secret is None:
            self.refusal = Refusal(Reason.BAD_PROOF, "the other side does not know the secret")
            return
        self.refusal = self._judge(party)
        if self.refusal is None:
            keys = _frame_keys(self._transcript, secret if self._tags else None)
            hello = self._hello
            self.established = Established(self._proto, hello.role, party, hello.name, connection, *keys)

    def _proven_by(self, proof: bytes) -> bytes | None:
        for secret in self._secrets:
            if hmac.compare_digest(self._transcript.mac(secret, _ACCEPTOR_PROOF), proof):
                return secret
        return None

    def _judge(self, party: Party) -> Refusal | None:
        wanted = self._hello.to
        if wanted != NOBODY and party.node_id != wanted:
            return Refusal(
                Reason.WRONG_NODE, f"node {party.node_id} answered where node {wanted} was expected"
            )
        cluster_id = self._hello.party.cluster_id
        if cluster_id and cluster_id != party.cluster_id:
            return Refusal(Reason.WRONG_CLUSTER, f"it belongs to cluster {party.cluster_id.hex()}")
        return self._admit(party) if self._admit is not None else None


class Acceptor:
    """The accepting side: give each frame to `receive` and send what it returns, until `is_over`."""

    def __init__(
        self,
        party: Party,
        secrets: Sequence[bytes],
        nonce: bytes,
        connection: int,
        admit: Admit,
        *,
        tags: bool = True,
    ) -> None:
        """`nonce`: 32 random bytes, never used before. `admit` is asked only after the proof."""
        self.established: Established | None = None
        self.refusal: Refusal | None = None
        self._party = party
        self._secrets = check_secrets(secrets)
        self._nonce = _exactly(nonce, NONCE_BYTES)
        self._connection = connection
        self._admit = admit
        self._tags = tags
        self._hello: Hello | None = None
        self._proto = 0
        self._transcript = _Transcript()

    @property
    def is_over(self) -> bool:
        return self.established is not None or self.refusal is not None

    def receive(self, kind: int, payload: bytes | memoryview) -> Outgoing:
        """What to send next; the connection is closed after a REFUSED. Raises `ProtocolError`."""
        if self.is_over:
            raise ProtocolError("the handshake is over")
        data = bytes(payload)
        if self._hello is None and kind == HELLO:
            return self._challenge(data)
        if self._hello is not None and kind == PROOF:
            return self._welcome(self._hello, data)
        raise ProtocolError(f"frame kind {kind} does not belong here in a handshake")

    def refuse(self, refusal: Refusal) -> Outgoing:
        """End the handshake with this reason; what is returned is still to be sent."""
        self.refusal = refusal
        return REFUSED, pack((refusal.reason.value, refusal.detail[:DETAIL_MAX]))

    def _challenge(self, payload: bytes) -> Outgoing:
        hello = _unpack_hello(payload)
        if hello.proto_max < PROTO_MIN or hello.proto_min > PROTO_MAX:
            mine, theirs = f"{PROTO_MIN}..{PROTO_MAX}", f"{hello.proto_min}..{hello.proto_max}"
            return self.refuse(
                Refusal(Reason.VERSION, f"this node speaks {mine}, the dialling side {theirs}")
            )
        self._hello = hello
        self._proto = min(hello.proto_max, PROTO_MAX)
        challenge = pack((self._proto, self._nonce))
        self._transcript.add(HELLO, payload)
        self._transcript.add(CHALLENGE, challenge)
        return CHALLENGE, challenge

    def _welcome(self, hello: Hello, payload: bytes) -> Outgoing:
        proofs = _unpack_proofs(payload)
        secret = self._proven_by(proofs)
        if self._secrets and secret is None:
            why = "it does not know the secret" if proofs else "this node requires a secret"
            return self.refuse(Refusal(Reason.BAD_PROOF, why))
        if proofs and not self._secrets:
            return self.refuse(
                Refusal(Reason.BAD_PROOF, "this node has no secret, the dialling side has one")
            )
        refusal = self._judge(hello) or self._admit(hello)
        if refusal is not None:
            return self.refuse(refusal)
        return self._establish(hello, payload, secret)

    def _judge(self, hello: Hello) -> Refusal | None:
        if hello.party.cluster_id not in (b"", self._party.cluster_id):
            return Refusal(
                Reason.WRONG_CLUSTER, f"this node belongs to cluster {self._party.cluster_id.hex()}"
            )
        if hello.to not in (NOBODY, self._party.node_id):
            return Refusal(Reason.WRONG_NODE, f"this is node {self._party.node_id}, not node {hello.to}")
        return None

    def _proven_by(self, proofs: list[bytes]) -> bytes | None:
        for secret in self._secrets:
            expected = self._transcript.mac(secret, _DIALLER_PROOF)
            if any(hmac.compare_digest(expected, proof) for proof in proofs):
                return secret
        return None

    def _establish(self, hello: Hello, proof: bytes, secret: bytes | None) -> Outgoing:
        body = _pack_welcome(self._party, self._connection)
        self._transcript.add(PROOF, proof)
        self._transcript.add(WELCOME, body)
        mac = self._transcript.mac(secret, _ACCEPTOR_PROOF) if secret is not None else b""
        receive_key, send_key = _frame_keys(self._transcript, secret if self._tags else None)
        self.established = Established(
            self._proto, hello.role, hello.party, hello.name, self._connection, send_key, receive_key
        )
        return WELCOME, pack((body, mac))


def _frame_keys(transcript: _Transcript, secret: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Keys of the frames that the dialling and the accepting side send."""
    if secret is None:
        return None, None
    return transcript.mac(secret, _DIALLER_FRAMES), transcript.mac(secret, _ACCEPTOR_FRAMES)


# ---------------------------------------------------------------------- shapes


def _pack_hello(hello: Hello) -> bytes:
    party = hello.party
    return pack(
        (
            MAGIC,
            hello.proto_min,
            hello.proto_max,
            int(hello.role),
            *(party.cluster_id, party.node_id, party.dir_uuid, party.incarnation, party.instance),
            *(hello.to, hello.name[:NAME_MAX], hello.nonce, party.rejoins),
        )
    )


def _unpack_hello(payload: bytes) -> Hello:
    """Fields that a later protocol version may append are ignored."""
    if len(payload) > HELLO_BYTES_MAX:
        raise ProtocolError(f"HELLO has {len(payload)} bytes, at most {HELLO_BYTES_MAX} are read")
    values = list_of(unpack(payload, depth_max=1))
    if len(values) < 12 or values[0] != MAGIC:
        raise ProtocolError(
            "HELLO does not open with the magic bytes: the other side speaks another protocol"
        )
    proto_min, proto_max, role = (_number(value) for value in values[1:4])
    if role not in tuple(Role):
        raise ProtocolError(f"role {role} is unknown")
    hello_role = Role(role)
    party = _party([*values[4:9], *values[12:13]], whole=hello_role is Role.PEER)
    to, name, nonce = _number(values[9]), _text(values[10], NAME_MAX), _exactly(values[11], NONCE_BYTES)
    return Hello(hello_role, party, nonce, to, name, proto_min, proto_max)


def _party(values: list[Any], *, whole: bool) -> Party:
    """`whole`: a member, which has to name everything."""
    cluster_id, node_id, dir_uuid, incarnation, instance, *rest = values
    party = Party(
        _bytes(cluster_id),
        _number(node_id),
        _bytes(dir_uuid),
        _number(incarnation),
        _bytes(instance),
        rejoins=bool(rest) and rest[0] is True,
    )
    allowed = (ID_BYTES,) if whole else (0, ID_BYTES)
    if len(party.cluster_id) not in allowed or len(party.dir_uuid) not in allowed:
        raise ProtocolError("an identity has the wrong size")
    if len(party.instance) not in (0, INSTANCE_BYTES) or (whole and party.node_id == NOBODY):
        raise ProtocolError("an identity is incomplete")
    return party


def _pack_welcome(party: Party, connection: int) -> bytes:
    return pack(
        (
            *(party.cluster_id, party.node_id, party.dir_uuid, party.incarnation, party.instance),
            *(connection, party.rejoins),
        )
    )


def _unpack_welcome(body: bytes) -> tuple[Party, int]:
    values = list_of(unpack(body, depth_max=1))
    if len(values) < 6:
        raise ProtocolError("WELCOME has too few fields")
    return _party([*values[:5], *values[6:7]], whole=True), _number(values[5])


def _unpack_proofs(payload: bytes) -> list[bytes]:
    proofs = [_exactly(proof, PROOF_BYTES) for proof in list_of(unpack(payload))]
    if len(proofs) > SECRETS_MAX:
        raise ProtocolError(f"{len(proofs)} proofs, at most {SECRETS_MAX} are read")
    return proofs


def _unpack_refusal(payload: bytes) -> Refusal:
    reason, detail = (_text(value, DETAIL_MAX) for value in list_of(unpack(payload), 2))
    for known in Reason:
        if known.value == reason:
            return Refusal(known, _printable(detail))
    raise ProtocolError(f"refused for a reason that this version does not know: {_printable(reason)}")


def _printable(text: str) -> str:
    """What a stranger wrote, safe to log."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise ProtocolError("a handshake field is not a number in range")
    return value


def _text(value: Any, length_max: int) -> str:
    if not isinstance(value, str) or len(value) > length_max:
        raise ProtocolError(f"a handshake field is not text of at most {length_max} characters")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ProtocolError("a handshake field is not bytes")
    return value


def _exactly(value: Any, size: int) -> bytes:
    if len(_bytes(value)) != size:
        raise ProtocolError(f"a handshake field does not have {size} bytes")
    return _bytes(value)
