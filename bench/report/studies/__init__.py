"""The studies of compiled schedules."""
