"""Peers: other people's batch norms behind the contract of all others, one file each, none of them required.

A peer imports its package when it is first called, so that none need be there.
"""

INSTALL = "pip install --group peers"
"""Installs all packages that peers need."""
