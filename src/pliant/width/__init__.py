"""The width wing: the leading channels of every layer run, as many as are chosen (slimmable networks; DS-Net)."""
