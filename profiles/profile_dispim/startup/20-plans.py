"""What to do with the microscope."""
# ruff: noqa: F401 # for whoever sits at the prompt

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np

from gently_bluesky.sim import acquire_volume, focus_sweep, timelapse
