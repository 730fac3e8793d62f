"""What runs where experiments are computed: agent, driver, job."""

WHEN_TOLD = "--when-told"
