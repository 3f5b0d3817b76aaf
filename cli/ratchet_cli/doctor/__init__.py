"""`ratchet doctor`: is everything there that jobs, or the demo, need; each finding with the command that mends it.

ask.py       I/O: questions to a cluster by kubectl, answers as data or the reason why there is none
check.py     one line of the result
cluster.py   what is asked of a cluster, and which checks of `ratchet_operator.checks` look at the answers
manifest.py  the same for what one manifest needs: nodes, queue, objects, bucket
machine.py   what `ratchet demo` and `ratchet train` need of this machine
"""
