"""Which channels of a network must agree: found by following them through every operator of one run."""

from pliant.readers.channels.groups import channel_groups

__all__ = ["channel_groups"]
