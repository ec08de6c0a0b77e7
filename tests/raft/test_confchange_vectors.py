"""etcd's data-driven tests of configuration changes, run against ours."""

from __future__ import annotations

from pathlib import Path

from quorker.core.raft.confchange import (
    ConfigRefusedError,
    Configuration,
    Members,
    Refusal,
    enter_joint,
    leave_joint,
    restore,
    simple,
    to_conf_state,
)
from quorker.core.raft.progress import ProgressTemplate
from quorker.sim.transcript.format import format_configuration, format_progress_map, parse_steps
from quorker.sim.transcript.parser import Directive, parse_transcript

WORDING = {  # how etcd words the refusals
    Refusal.ALREADY_JOINT: "config is already joint",
    Refusal.NOT_JOINT: "can't leave a non-joint config",
    Refusal.SIMPLE_IN_JOINT: "can't apply simple config change in joint config",
    Refusal.NO_VOTERS_YET: "can't make a zero-voter config joint",
    Refusal.NO_VOTERS_LEFT: "removed all voters",
    Refusal.NEEDS_JOINT: "more than one voter changed without entering joint config",
}


def test_confchange_vector(confchange_vector: Path) -> None:
    directives = parse_transcript(confchange_vector.read_text()).directives
    assert directives
    members: Members = (Configuration(), {})
    for last_index, directive in enumerate(directives):
        try:
            members = changed(directive, members, ProgressTemplate(last_index, max_inflight_messages=10))
            output = f"{format_configuration(members[0])}\n{format_progress_map(members[1])}"
        except ConfigRefusedError as error:
            output = WORDING[error.reason] + "\n"
        assert output == directive.expected, f"{confchange_vector.name}:{directive.line}"
        assert_restorable(members)


def changed(directive: Directive, members: Members, template: ProgressTemplate) -> Members:
    steps = parse_steps(directive.input)
    match directive.name:
        case "simple":
            return simple(members, steps, template)
        case "enter-joint":
            auto_leave = directive.get("autoleave")
            return enter_joint(members, steps, template, auto_leave=bool(auto_leave and auto_leave.flag()))
        case "leave-joint":
            return leave_joint(members)
        case unknown:
            raise AssertionError(f"no such directive: {unknown}")


def assert_restorable(members: Members) -> None:
    """What a snapshot says about a configuration gives that configuration again."""
    config, progress = members
    again, fresh = restore(to_conf_state(config), ProgressTemplate(1, max_inflight_messages=1))
    assert again == config
    assert {node_id: known.is_learner for node_id, known in progress.items()} == {
        node_id: known.is_learner for node_id, known in fresh.items()
    }
