"""The page of `mission watch`: a training run while it goes on, on this machine only and without writing anything to it."""
