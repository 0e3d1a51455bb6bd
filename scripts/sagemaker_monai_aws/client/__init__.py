"""Inputs to a server or an endpoint and what comes back; what needs no AWS is standard library only."""
