"""The three providers as HTTP servers, with a record of what they have shown and faults on demand."""

from bridge.simulator.server import PROVIDERS, Simulator
from bridge.simulator.settings import FaultRule, SimulatorSettings, demo_settings

__all__ = ["PROVIDERS", "FaultRule", "Simulator", "SimulatorSettings", "demo_settings"]
