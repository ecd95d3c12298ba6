"""The iSCSI target: portals, connections, logical units and what they store."""
