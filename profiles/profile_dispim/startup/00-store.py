"""Where the data go, and the RunEngine. Storage is subscribed before anything else, or nothing starts."""

from gently_bluesky import configure
from gently_bluesky.errors import GentlyError

try:
    configure(globals(), banner=False)  # $GENTLY_STORE, the configuration file, or ~/dispim says where
except GentlyError as error:
    raise SystemExit(f"no session without storage: {error}") from None
