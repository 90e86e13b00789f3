"""The documents' way through: in from the RunEngine, to storage, out to subscribers, and back from records."""
