"""A display in a second process, which shows each volume as soon as it is stored, while the run goes on.

Here one script starts both. In earnest they are two terminals: the session that acquires, and this display. What
it shows last is kept in `live.png`.

Needs: the extra `profile`, for matplotlib.

Prints:

    e1, volume 0: <LazyArray view_a (z: 8, y: 128, x: 128) uint16 262.1 kB cb343d59/0>
    e1, volume 1: <LazyArray view_a (z: 8, y: 128, x: 128) uint16 262.1 kB cb343d59/1>
    e1, volume 2: <LazyArray view_a (z: 8, y: 128, x: 128) uint16 262.1 kB cb343d59/2>
    e1, volume 3: <LazyArray view_a (z: 8, y: 128, x: 128) uint16 262.1 kB cb343d59/3>
    the run is complete
"""

import multiprocessing
import sys

import matplotlib.pyplot as plt
from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

root = sys.argv[1] if len(sys.argv) > 1 else "dispim"


def display(root, before, watching):
    store = Store(root, mode="r")  # a reader changes nothing, and may come and go
    watching.set()
    run = store.wait_for_run(
        after=before
    )  # without `after` the one that is being written, or else the next one
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    shown = None
    # Every volume comes, in order; follow(latest_only=True) skips some where the camera is faster than the display.
    for number, volume in enumerate(run.wait("primary", "view_a").follow(start=0)):
        projection = volume.max(axis=0)
        if shown is None:
            shown = axes.imshow(projection, cmap="gray")
        shown.set_data(projection)
        shown.autoscale()
        axes.set_title(f"{run.start['embryo']}, volume {number}")
        plt.pause(0.01)  # draws; the window stays alive
        print(f"{axes.get_title()}: {volume}", flush=True)
    figure.savefig("live.png")
    print(f"the run is {run.status}")


if __name__ == "__main__":
    store = Store(root)
    RE = RunEngine()
    RE.subscribe(store.writer())

    scope = SimulatedDiSPIM(size=128, n_slices=8)
    (before,) = RE(acquire_volume(scope, embryo="e1"))

    processes = multiprocessing.get_context("spawn")  # as Windows and macOS start them
    watching = processes.Event()
    viewer = processes.Process(target=display, args=(root, before, watching))
    viewer.start()
    watching.wait()

    RE(acquire_volume(scope, num=4, embryo="e1"))
    viewer.join()
