"""What to do with the microscope; bp, bps and bpp are bluesky's plans, plan stubs and preprocessors."""
# ruff: noqa: F401 # for whoever sits at the prompt

from gently_bluesky.sim import acquire_volume, focus_sweep, timelapse
