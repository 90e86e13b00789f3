"""What a newcomer should know."""

from gently_bluesky.welcome import welcome

print(f"""
{welcome(store, RE.md["session"])}

  (uid,) = RE(acquire_volume(scope, embryo="e1"))     one volume from both views
  RE(timelapse(scope, timepoints=3))                  many embryos, many volumes
  store[uid]["view_a"][0, 16].compute()               one plane of the volume, and no more, is read

  %runs   %show -1   %lineage -1   %session NAME      Ctrl-C twice pauses: RE.resume(), RE.abort()
""")
