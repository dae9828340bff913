"""A FeedAMP sandbox: a strict server with simulated sellers, faults on request, and counters of broken rules.

with running(SandboxOptions(sellers=2)) as sandbox:
    …                              # run a client against sandbox.api
    sandbox.act(rounds=3)          # sellers acknowledge, ship, cancel
    assert sandbox.broken_rules == []
"""

from feedamp_sandbox.faults import Fault
from feedamp_sandbox.options import SandboxOptions, Seller
from feedamp_sandbox.rules import RULES, BrokenRule
from feedamp_sandbox.running import Sandbox, running
from feedamp_sandbox.server import Exchange
from feedamp_sandbox.world import LoggedRequest

__all__ = [
    "RULES",
    "BrokenRule",
    "Exchange",
    "Fault",
    "LoggedRequest",
    "Sandbox",
    "SandboxOptions",
    "Seller",
    "running",
]
