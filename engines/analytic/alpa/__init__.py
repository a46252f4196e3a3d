"""Alpa's way to plan, on our cost model: shardings by integer programming, stages by dynamic programming."""
