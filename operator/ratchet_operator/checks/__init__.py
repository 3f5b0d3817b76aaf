"""Whether a cluster and a bucket are ready for a job: findings with what is wrong and how to mend it.

Functions of plain data, so that a command can print what they find and a test can be a table. What is read of the
cluster is the caller's.

| module | looks at |
|---|---|
| `node_pools` | nodes: is there a slice for each placement |
| `installation` | CustomResourceDefinitions: what must be installed, and whether they are this program's |
| `running` | the operator: its Deployment, its pods, its Lease |
| `rights` | what users and the operator must be allowed to do |
| `queues` | whether Kueue knows the queue that a job names |
| `objects` | claims, ConfigMaps, Secrets and service accounts that a job names |
| `buckets` | where checkpoints go, from where, and as whom |
"""
