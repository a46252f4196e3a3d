"""Alpa's way to plan, on our cost model: shardings of operators by integer programming, stages by dynamic programming."""
