"""The handshake: who gets in, who is refused and told why, and what no order of messages achieves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorker.core.errors import Busy, ConfigurationError, IdentityMismatch, ProtocolError
from quorker.core.wire.frames import Outgoing
from quorker.core.wire.handshake import (
    CHALLENGE,
    DETAIL_MAX,
    HELLO,
    HELLO_BYTES_MAX,
    NAME_MAX,
    PROOF,
    PROTO_MAX,
    REFUSED,
    SECRET_BYTES_MIN,
    WELCOME,
    Acceptor,
    Dialler,
    Hello,
    Party,
    Reason,
    Refusal,
    check_secrets,
    cluster_id_of,
)
from quorker.core.wire.records import INT_MAX, pack, unpack
from quorker.core.wire.requests import Role
from quorker.sim.bare.wire_corpus import WireCorpus

CLUSTER = cluster_id_of("prod")
ONE = Party(CLUSTER, 1, b"1" * 16, 1, b"i" * 8)
TWO = Party(CLUSTER, 2, b"2" * 16, 1, b"j" * 8)
SECRET, OTHER = b"s" * 32, b"o" * 32
HELLO_OF_ONE = Hello(Role.PEER, ONE, b"d" * 32, to=2, name="one")


def let_in(_: Hello) -> Refusal | None:
    return None


def accepting(
    *secrets: bytes,
    nonce: bytes = b"a" * 32,
    party: Party = TWO,
    admit: Callable[[Hello], Refusal | None] = let_in,
    tags: bool = True,
) -> Acceptor:
    return Acceptor(party, secrets, nonce, 42, admit, tags=tags)


class Careless(Acceptor):
    """An accepting side that lets everybody in."""

    def _judge(self, hello: Hello) -> Refusal | None:
        return None

    def _proven_by(self, proofs: list[bytes]) -> bytes | None:
        return self._secrets[0] if self._secrets else None


def converse(dialler: Dialler, acceptor: Acceptor) -> list[Outgoing]:
    """Carry frames until one side is done with it; returns everything that was said."""
    said: list[Outgoing] = []
    frame: Outgoing | None = dialler.start()
    while frame is not None:
        said.append(frame)
        frame = acceptor.receive(*frame)
        said.append(frame)
        frame = dialler.receive(*frame)
    return said


def refused(dialler: Dialler, acceptor: Acceptor) -> Refusal:
    """The reason, which both sides know."""
    converse(dialler, acceptor)
    assert dialler.established is None
    assert dialler.refusal is not None
    return dialler.refusal


# ---------------------------------------------------------------------- the way in


@pytest.mark.parametrize("secrets", [(), (SECRET,)], ids=["open", "secret"])
def test_both_sides_know_each_other_afterwards(secrets: tuple[bytes, ...]) -> None:
    dialler, acceptor = Dialler(HELLO_OF_ONE, secrets), accepting(*secrets)
    said = converse(dialler, acceptor)
    assert [kind for kind, _ in said] == [HELLO, CHALLENGE, PROOF, WELCOME]
    near, far = dialler.established, acceptor.established
    assert near is not None
    assert far is not None
    assert (near.remote, far.remote) == (TWO, ONE)
    assert (near.role, near.proto, near.connection, near.name) == (Role.PEER, PROTO_MAX, 42, "one")
    assert (far.role, far.proto, far.connection, far.name) == (Role.PEER, PROTO_MAX, 42, "one")
    assert (near.send_key, near.receive_key) == (far.receive_key, far.send_key)
    assert (near.send_key is None) == (not secrets)
    if secrets:
        assert near.send_key != near.receive_key


@pytest.mark.parametrize("rejoins", [False, True])
def test_both_sides_hear_that_the_other_rejoins(rejoins: bool) -> None:
    hello = replace(HELLO_OF_ONE, party=replace(ONE, rejoins=rejoins))
    dialler, acceptor = Dialler(hello, (SECRET,)), accepting(SECRET, party=replace(TWO, rejoins=rejoins))
    converse(dialler, acceptor)
    assert dialler.established is not None
    assert acceptor.established is not None
    assert dialler.established.remote.rejoins is rejoins
    assert acceptor.established.remote.rejoins is rejoins


def test_frames_carry_no_tags_inside_tls() -> None:
    dialler, acceptor = Dialler(HELLO_OF_ONE, (SECRET,), tags=False), accepting(SECRET, tags=False)
    converse(dialler, acceptor)
    assert dialler.established is not None
    assert dialler.established.send_key is None


@pytest.mark.parametrize(
    ("near", "far"),
    [*product([(SECRET,), (SECRET, OTHER), (OTHER, SECRET)], repeat=2)],
)
def test_either_of_two_secrets_will_do_while_one_is_replaced(
    near: tuple[bytes, ...], far: tuple[bytes, ...]
) -> None:
    dialler, acceptor = Dialler(HELLO_OF_ONE, near), accepting(*far)
    converse(dialler, acceptor)
    assert dialler.established is not None
    assert acceptor.established is not None
    assert dialler.established.send_key == acceptor.established.receive_key


def test_a_client_needs_no_identity() -> None:
    hello = Hello(Role.CLIENT, Party(), b"d" * 32, name="web")
    dialler, acceptor = Dialler(hello, (SECRET,)), accepting(SECRET)
    converse(dialler, acceptor)
    assert acceptor.established is not None
    assert acceptor.established.role is Role.CLIENT


def test_keys_differ_from_connection_to_connection() -> None:
    keys: list[bytes | None] = []
    for nonces in ((b"d" * 32, b"a" * 32), (b"d" * 32, b"b" * 32), (b"e" * 32, b"a" * 32)):
        dialler = Dialler(replace(HELLO_OF_ONE, nonce=nonces[0]), (SECRET,))
        acceptor = accepting(SECRET, nonce=nonces[1])
        converse(dialler, acceptor)
        assert dialler.established is not None
        keys += [dialler.established.send_key, dialler.established.receive_key]
    assert len(set(keys)) == 6


# ---------------------------------------------------------------------- refusals name their reason


@pytest.mark.parametrize(
    ("near", "far", "words"),
    [
        ((OTHER,), (SECRET,), "does not know the secret"),
        ((), (SECRET,), "requires a secret"),
        ((SECRET,), (), "has no secret"),
    ],
)
def test_a_bad_proof(near: tuple[bytes, ...], far: tuple[bytes, ...], words: str) -> None:
    acceptor = accepting(*far, admit=lambda hello: pytest.fail("identities are judged after the proof"))
    refusal = refused(Dialler(HELLO_OF_ONE, near), acceptor)
    assert refusal.reason is Reason.BAD_PROOF
    assert words in refusal.detail


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (
            replace(HELLO_OF_ONE, party=replace(ONE, cluster_id=cluster_id_of("staging"))),
            Reason.WRONG_CLUSTER,
        ),
        (replace(HELLO_OF_ONE, to=3), Reason.WRONG_NODE),
        (replace(HELLO_OF_ONE, proto_min=PROTO_MAX + 1, proto_max=PROTO_MAX + 2), Reason.VERSION),
        (replace(HELLO_OF_ONE, proto_min=0, proto_max=0), Reason.VERSION),
    ],
)
def test_refusals_of_the_accepting_side(hello: Hello, reason: Reason) -> None:
    assert refused(Dialler(hello, (SECRET,)), accepting(SECRET)).reason is reason


def test_whoever_admits_can_refuse() -> None:
    refusal = Refusal(Reason.DUPLICATE_NODE, "two of them")
    acceptor = accepting(SECRET, admit=lambda hello: refusal)
    assert refused(Dialler(HELLO_OF_ONE, (SECRET,)), acceptor) == refusal
    assert acceptor.refusal == refusal


def test_a_wider_range_of_versions_meets_in_the_highest_common_one() -> None:
    dialler = Dialler(replace(HELLO_OF_ONE, proto_min=0, proto_max=PROTO_MAX + 5), (SECRET,))
    converse(dialler, accepting(SECRET))
    assert dialler.established is not None
    assert dialler.established.proto == PROTO_MAX


@pytest.mark.parametrize(
    ("party", "reason"),
    [
        (replace(TWO, node_id=3), Reason.WRONG_NODE),
        (replace(TWO, cluster_id=cluster_id_of("staging")), Reason.WRONG_CLUSTER),
    ],
)
def test_the_dialling_side_checks_whom_it_reached(party: Party, reason: Reason) -> None:
    """The accepting side of this test is too polite to refuse by itself."""
    hello = Hello(Role.CLIENT, Party(CLUSTER), b"d" * 32, to=2)
    acceptor = Careless(party, (SECRET,), b"a" * 32, 42, let_in)
    dialler = Dialler(hello, (SECRET,))
    assert refused(dialler, acceptor).reason is reason


def test_the_dialling_side_may_refuse_whom_it_reached() -> None:
    refusal = Refusal(Reason.DUPLICATE_NODE, "another one was here before")
    dialler = Dialler(HELLO_OF_ONE, (SECRET,), admit=lambda party: refusal)
    assert refused(dialler, accepting(SECRET)) == refusal


def test_an_accepting_side_without_the_secret_is_not_believed() -> None:
    """The proof of its WELCOME is missing, or made with another secret."""
    for secrets in ((), (OTHER,)):
        dialler = Dialler(HELLO_OF_ONE, (SECRET,))
        impostor = Careless(TWO, secrets, b"a" * 32, 42, let_in)
        with suppress(ProtocolError):
            converse(dialler, impostor)
        assert dialler.established is None
        assert dialler.refusal is not None
        assert dialler.refusal.reason is Reason.BAD_PROOF


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (Reason.WRONG_CLUSTER, IdentityMismatch),
        (Reason.DUPLICATE_NODE, IdentityMismatch),
        (Reason.BAD_PROOF, ConfigurationError),
        (Reason.VERSION, ConfigurationError),
        (Reason.TOO_MANY_CONNECTIONS, Busy),
    ],
)
def test_people_read_where_and_why(reason: Reason, error: type[Exception]) -> None:
    raised = Refusal(reason, "the detail").to_error("db1:7701")
    assert type(raised) is error
    assert str(raised) == f"db1:7701: {reason.value}: the detail"


# ---------------------------------------------------------------------- what no order of messages achieves


def conversation(hello: Hello = HELLO_OF_ONE, nonce: bytes = b"a" * 32) -> list[Outgoing]:
    return converse(Dialler(hello, (SECRET,)), accepting(SECRET, nonce=nonce))


RECORDED = {
    "hello": conversation()[0],
    "challenge": conversation()[1],
    "proof": conversation()[2],
    "welcome": conversation()[3],
    "refused": (REFUSED, pack((Reason.BAD_PROOF.value, "no"))),
    "raft": (16, b"\x05\x01\x90"),
    "empty": (0, b""),
}


@pytest.mark.parametrize("pair", [*product(RECORDED, repeat=2)], ids="-".join)
def test_no_two_recorded_messages_open_the_accepting_side(pair: tuple[str, str]) -> None:
    """Its nonce is another one this time, so a replayed proof is worth nothing."""
    acceptor = accepting(SECRET, nonce=b"n" * 32)
    with suppress(ProtocolError):
        for name in pair:
            acceptor.receive(*RECORDED[name])
    assert acceptor.established is None


@pytest.mark.parametrize("pair", [*product(RECORDED, repeat=2)], ids="-".join)
def test_no_two_recorded_messages_convince_the_dialling_side(pair: tuple[str, str]) -> None:
    dialler = Dialler(replace(HELLO_OF_ONE, nonce=b"n" * 32), (SECRET,))
    dialler.start()
    with suppress(ProtocolError):
        for name in pair:
            dialler.receive(*RECORDED[name])
    assert dialler.established is None


def test_the_recorded_messages_would_do_if_the_nonces_came_again() -> None:
    """The two tests above can fail."""
    acceptor = accepting(SECRET)
    acceptor.receive(*RECORDED["hello"])
    acceptor.receive(*RECORDED["proof"])
    assert acceptor.established is not None


def test_a_proof_sent_back_is_no_proof() -> None:
    """Reflection: the accepting side of one connection cannot be answered with what it said itself."""
    dialler = Dialler(HELLO_OF_ONE, (SECRET,))
    dialler.start()
    proof = dialler.receive(*RECORDED["challenge"])
    assert proof is not None
    (mac,) = unpack(proof[1])
    body = unpack(RECORDED["welcome"][1])[0]
    dialler.receive(WELCOME, pack((body, mac)))
    assert dialler.established is None


@pytest.mark.parametrize(
    "change",
    [
        {"role": Role.CLIENT},
        {"party": replace(ONE, node_id=3)},
        {"party": replace(ONE, incarnation=9)},
        {"to": 0},
        {"name": "else"},
        {"proto_max": PROTO_MAX + 1},
        {"nonce": b"x" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_proof_covers_every_field_of_hello(change: dict[str, object]) -> None:
    """Somebody in the middle changes HELLO and passes everything else on."""
    dialler, acceptor = Dialler(HELLO_OF_ONE, (SECRET,)), accepting(SECRET)
    dialler.start()
    challenge = acceptor.receive(*Dialler(replace(HELLO_OF_ONE, **change)).start())  # type: ignore[arg-type]  # varies
    proof = dialler.receive(*challenge)
    assert proof is not None
    acceptor.receive(*proof)
    assert acceptor.refusal is not None
    assert acceptor.refusal.reason is Reason.BAD_PROOF


def test_the_end_is_the_end() -> None:
    dialler, acceptor = Dialler(HELLO_OF_ONE, (SECRET,)), accepting(SECRET)
    said = converse(dialler, acceptor)
    with pytest.raises(ProtocolError, match="over"):
        dialler.receive(*said[1])
    with pytest.raises(ProtocolError, match="over"):
        acceptor.receive(*said[0])


# ---------------------------------------------------------------------- limits and shapes


def hello_fields(hello: Hello = HELLO_OF_ONE) -> list[object]:
    fields: list[object] = unpack(Dialler(hello).start()[1])
    return fields


def hello_of_size(size: int) -> bytes:
    """With one more field, as a later version may send."""
    fields = hello_fields()
    return pack([*fields, b"x" * (256 + size - len(pack([*fields, b"x" * 256])))])


@pytest.mark.parametrize("size", [HELLO_BYTES_MAX - 1, HELLO_BYTES_MAX])
def test_hello_up_to_512_bytes_is_read(size: int) -> None:
    assert accepting().receive(HELLO, hello_of_size(size))[0] == CHALLENGE


def test_hello_over_512_bytes_is_refused() -> None:
    with pytest.raises(ProtocolError, match="513 bytes, at most 512"):
        accepting().receive(HELLO, hello_of_size(HELLO_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((0, value) for value in (b"quorker\x01", b"", "quorker\x00", None)),
        *(
            (place, value)
            for place in (1, 2, 3, 5, 7, 9)
            for value in (-1, INT_MAX + 1, True, "1", None, 1.5)
        ),
        (3, 0),
        (3, 4),
        *((place, b"x" * size) for place in (4, 6) for size in (0, 15, 17)),
        (5, 0),
        *((8, b"x" * size) for size in (7, 9)),
        *((10, value) for value in ("x" * (NAME_MAX + 1), b"name", None)),
        *((11, b"x" * size) for size in (0, 31, 33)),
    ],
)
def test_every_field_of_hello_is_checked(place: int, value: object) -> None:
    fields = hello_fields()
    fields[place] = value
    with pytest.raises(ProtocolError):
        accepting().receive(HELLO, pack(fields))


@pytest.mark.parametrize("count", [0, 1, 11])
def test_hello_has_all_its_fields(count: int) -> None:
    with pytest.raises(ProtocolError):
        accepting().receive(HELLO, pack(hello_fields()[:count]))


@pytest.mark.parametrize(
    "proofs", [[b"x" * 31], [b"x" * 33], [b"x" * 32] * 3, ["x" * 32], None, {}, [[]]], ids=repr
)
def test_proofs_are_one_or_two_of_32_bytes(proofs: object) -> None:
    acceptor = accepting(SECRET)
    acceptor.receive(*RECORDED["hello"])
    with pytest.raises(ProtocolError):
        acceptor.receive(PROOF, pack(proofs))


def test_a_version_that_was_not_offered_is_not_accepted() -> None:
    for proto in (0, PROTO_MAX + 1):
        dialler = Dialler(HELLO_OF_ONE)
        dialler.start()
        with pytest.raises(ProtocolError, match="not offered"):
            dialler.receive(CHALLENGE, pack((proto, b"a" * 32)))


@pytest.mark.parametrize("length", [DETAIL_MAX - 1, DETAIL_MAX])
def test_a_refusal_up_to_its_limit_is_read(length: int) -> None:
    dialler = Dialler(HELLO_OF_ONE)
    dialler.receive(REFUSED, pack((Reason.BAD_PROOF.value, "x" * length)))
    assert dialler.refusal == Refusal(Reason.BAD_PROOF, "x" * length)


@pytest.mark.parametrize(
    "payload",
    [pack((Reason.BAD_PROOF.value, "x" * (DETAIL_MAX + 1))), pack(("no such reason", "")), pack(()), b""],
)
def test_any_other_refusal_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        Dialler(HELLO_OF_ONE).receive(REFUSED, payload)


def test_a_long_reason_is_cut_before_it_is_sent() -> None:
    acceptor = accepting(admit=lambda hello: Refusal(Reason.DUPLICATE_NODE, "y" * 1000))
    assert refused(Dialler(HELLO_OF_ONE), acceptor).detail == "y" * DETAIL_MAX


def test_what_a_stranger_writes_is_safe_to_log() -> None:
    dialler = Dialler(HELLO_OF_ONE)
    dialler.receive(REFUSED, pack((Reason.BAD_PROOF.value, "a\x1b[31m\nb")))
    assert dialler.refusal is not None
    assert dialler.refusal.detail == "a?[31m?b"


@pytest.mark.parametrize("secrets", [(b"s" * SECRET_BYTES_MIN,), (SECRET, OTHER), ()])
def test_good_secrets(secrets: tuple[bytes, ...]) -> None:
    assert check_secrets(secrets) == secrets


@pytest.mark.parametrize(
    "secrets", [(b"",), (b"s" * (SECRET_BYTES_MIN - 1),), (SECRET, b"short"), (SECRET,) * 3]
)
def test_bad_secrets_are_named_with_their_limit(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"at least 16|at most 2"):
        check_secrets(secrets)


# ---------------------------------------------------------------------- fuzz


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=120)), max_size=4))
def test_any_frames_open_nothing_and_raise_only_protocol_errors(frames: list[Outgoing]) -> None:
    for machine in (accepting(SECRET), Dialler(HELLO_OF_ONE, (SECRET,))):
        with suppress(ProtocolError):
            for kind, payload in frames:
                machine.receive(kind, payload)
        assert machine.established is None


@given(st.data())
def test_one_changed_byte_anywhere_opens_nothing(data: st.DataObject) -> None:
    """Of four messages one is changed on its way: never are both sides in, unless it meant the same."""
    dialler, acceptor = Dialler(HELLO_OF_ONE, (SECRET,)), accepting(SECRET)
    victim, number = data.draw(st.integers(0, 3)), 0
    frame: Outgoing | None = dialler.start()
    with suppress(ProtocolError):
        for machine in (acceptor, dialler, acceptor, dialler):
            if frame is None:
                break
            if number == victim:
                payload = bytearray(frame[1])
                payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
                frame = frame[0], bytes(payload)
            frame, number = machine.receive(*frame), number + 1
    assert dialler.established is None


def test_the_corpus_opens_nothing() -> None:
    valid = [RECORDED[name] for name in ("hello", "proof", "challenge", "welcome")]
    for (kind, payload), stream in product(valid, WireCorpus(2, valid).streams(50)):
        for machine in (accepting(SECRET, nonce=b"n" * 32), Dialler(HELLO_OF_ONE, (SECRET,))):
            with suppress(ProtocolError):
                machine.receive(kind, stream)
                machine.receive(kind, payload)
            assert machine.established is None
