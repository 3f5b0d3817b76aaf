"""Dashboards and alert rules as code, made from the registry of metrics.

`python -m ratchet_monitoring.generate` writes them into the chart. What a panel or an alert is, is a row of a table in
`boards/` and `alerts`; how Grafana wants it written is `grafana`.
"""
