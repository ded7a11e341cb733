"""A saved network for the Hugging Face Hub: the folder, its README, and the way there."""

from pliant.publish.folder import pack, push

__all__ = ["pack", "push"]
