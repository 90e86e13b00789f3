"""Where the data go, and the RunEngine. Storage is subscribed before anything else, or nothing starts."""

import os

from bluesky import RunEngine

from gently_bluesky import Store
from gently_bluesky.errors import GentlyError

try:
    store = Store(os.environ.get("GENTLY_STORE") or "~/dispim")
except GentlyError as error:
    raise SystemExit(f"no session without storage: {error}") from None

RE = RunEngine({})
RE.subscribe(store.writer())
