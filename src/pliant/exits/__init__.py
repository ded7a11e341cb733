"""The exits wing: classifiers on the way, where easy inputs leave early (MSDNet; IMTA)."""
