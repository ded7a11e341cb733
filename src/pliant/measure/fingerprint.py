"""The fingerprint of a network, where those look for it who measure; the core has it, for those who ship."""

from pliant.core.fingerprint import fingerprint

__all__ = ["fingerprint"]
