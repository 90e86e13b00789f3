"""The microscope. It is simulated: put your own devices here, under the same names."""

from gently_bluesky.sim import SimulatedDiSPIM

scope = SimulatedDiSPIM(name="dispim")
light_sheet, camera_a, camera_b = scope.light_sheet, scope.camera_a, scope.camera_b
stage, head, piezo, galvo, lasers = scope.stage, scope.head, scope.piezo, scope.galvo, scope.lasers
