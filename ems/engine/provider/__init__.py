"""`pulumi-resource-ems`: the Pulumi provider of EMS, a gRPC server that the engine starts for one update.

`server` speaks the protocol; `records` are the rows of the registry; `run` is one experiment's run; the resources of a
kind of place live with the place, in `ems.clusters`.
"""
