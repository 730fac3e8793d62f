"""EMS, the Experiment Management System: each experiment is a Pulumi stack."""

__version__ = "0.1.0"
