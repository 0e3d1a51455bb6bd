"""What stands in the account: stack, policies, image, prices; and its state, logs and removal."""
