"""Devices that write their arrays into a store by themselves, and hand the RunEngine documents that name them."""
