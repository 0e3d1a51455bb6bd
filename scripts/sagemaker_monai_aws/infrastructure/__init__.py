"""Resources in the account: stack, policies, image, prices; their state, logs and removal."""
