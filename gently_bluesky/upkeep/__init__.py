"""What keeps a store honest: recovery."""
