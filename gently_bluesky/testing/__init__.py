"""What tests of backends, plans and stores need, ours and others'. Needs pytest and hypothesis."""
