"""A simulated diSPIM with the habits of the real one: devices, embryos, plans, bad manners on request."""

from gently_bluesky.sim.devices import Lasers, SimulatedDiSPIM, Thermometer
from gently_bluesky.sim.motion import Axis, Galvo, XYStage
from gently_bluesky.sim.plans import acquire_volume, focus_sweep, timelapse
from gently_bluesky.sim.reading import Camera, LightSheet
from gently_bluesky.sim.rudeness import Rudeness, SimulatedFault
from gently_bluesky.sim.specimen import Embryo

__all__ = [
    "Axis",
    "Camera",
    "Embryo",
    "Galvo",
    "Lasers",
    "LightSheet",
    "Rudeness",
    "SimulatedDiSPIM",
    "SimulatedFault",
    "Thermometer",
    "XYStage",
    "acquire_volume",
    "focus_sweep",
    "timelapse",
]
