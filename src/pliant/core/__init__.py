"""What every other room stands on: sub-networks, anatomies, plans, configs. Needs torch only."""
