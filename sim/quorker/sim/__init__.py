"""The other world: simulated time, network, disks and clocks around the very core that runs in production.

One seed decides everything that happens here. Nothing in this package touches a real clock, socket or file,
and nothing outside tests and tools imports it.
"""
