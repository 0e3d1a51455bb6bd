"""From a data set to an artifact: the plan, the loop, what it is made of, and the job around it."""
