"""What a newcomer should know."""

stats = store.stats()
runs = sum(stats["runs"].values()) - stats["derived"]
print(f"""
Data go to {store.root} ({runs} runs so far; GENTLY_STORE names another folder).

  (uid,) = RE(acquire_volume(scope, embryo="e1", session="first light"))
  store[uid]["view_a"][0, 16].compute()          one plane of the volume, and no more, is read
  RE(timelapse(scope, timepoints=3))             list(store.query(embryo="e1")) finds the runs of an embryo
""")
del runs, stats
