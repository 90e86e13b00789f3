"""A device of one's own: Micro-Manager's camera as an ophyd device, by pymmcore-plus.

It has `trigger`, `read` and `describe`, and returns its frame as an array: that is all that the writer asks for.

Needs: `pip install pymmcore-plus mm-test-adapters`, of one device interface (75 for both here), for a camera without
hardware. For yours: `core = CMMCorePlus()` and `core.loadSystemConfiguration("scope.cfg")`.

Prints:

    <LazyArray image (t: 5, y: 512, x: 512) uint16 2.6 MB c1916243>
    steps in um: (0.1625, 0.1625), exposure in s: {'camera_exposure_s': 0.002, 'camera_pixel_size_um': 0.1625}
"""

import sys
import threading
import time

import mm_test_adapters
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus
from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus

from gently_bluesky import Store

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"

core = CMMCorePlus(mm_path=mm_test_adapters.device_adapter_path())
CMMCore.registerCallback(core, None)  # nobody here listens to core.events; a late one would abort Python
core.loadDevice("Camera", "DemoCamera", "DCam")
core.initializeAllDevices()
core.setCameraDevice("Camera")
core.setProperty("Camera", "PixelType", "16bit")


class Exposure(Signal):
    """The exposure of the camera: `bps.mv` sets it, and every descriptor tells it."""

    def put(self, value, **kwargs):
        core.setExposure(1000 * value)
        super().put(core.getExposure() / 1000, **kwargs)  # what the camera made of it


class Camera(Device):
    exposure_s = Component(Exposure, value=0.01, kind="config")
    pixel_size_um = Component(
        Signal, value=0.1625, kind="config"
    )  # found by its name, for the images' metadata

    def trigger(self):
        status = DeviceStatus(self)
        threading.Thread(target=self.expose, args=(status,)).start()  # the RunEngine does not stand still
        return status

    def expose(self, status):
        try:
            self.frame = {"value": core.snap(), "timestamp": time.time()}
        except Exception as error:
            status.set_exception(error)  # fails the plan
        else:
            status.set_finished()

    def read(self):
        return {**super().read(), "image": self.frame}

    def describe(self):
        shape = [core.getImageHeight(), core.getImageWidth()]
        said = {"source": "DCam", "dtype": "array", "shape": shape, "dtype_numpy": "<u2", "dims": ["y", "x"]}
        return {**super().describe(), "image": said}


store = Store(root)
RE = RunEngine()
RE.subscribe(store.writer())
camera = Camera(name="camera")

RE(bps.mv(camera.exposure_s, 0.002))
(uid,) = RE(bp.count([camera], num=5))

images = store[uid]["primary"]["image"]
descriptor = next(doc for name, doc in store[uid].documents() if name == "descriptor")
print(images)
print(f"steps in um: {images.scale[1:]}, exposure in s: {descriptor['configuration']['camera']['data']}")
