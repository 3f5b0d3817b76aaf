"""Whether a cluster and a bucket are ready for a job: findings with what is wrong and how to mend it.

Functions of plain data, so that a command can print what they find and a test can be a table. What is read of the
cluster is the caller's.

| module | looks at |
|---|---|
| `node_pools` | nodes: is there a slice for each placement |
| `installation` | CustomResourceDefinitions: what must be installed |
| `buckets` | where checkpoints go, from where, and as whom |
"""
