"""Lets what is written for apps, job handles and plans, use a bare connection. What must not live here: any command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quorker.app.filters import NO_FILTERS, FilterChain
from quorker.app.gateway import Ask, perform
from quorker.app.lock_line import Held, why_lost
from quorker.transport.connection import Connection


@dataclass(frozen=True, slots=True)
class ConnectionHost:
    """The host of job handles and the gateway of plans in one."""

    connection: Connection

    def gateway(self) -> ConnectionHost:
        return self

    def filters_for(self, task: str) -> FilterChain:
        return NO_FILTERS

    async def request(self, ask: Ask) -> Any:
        return await perform(self.connection, ask)

    def request_blocking(self, ask: Ask) -> Any:
        raise NotImplementedError("a bare connection is asked in async code only")

    def why_lost(self, resource: str, held: Held) -> str:
        return why_lost(self.connection, held)
