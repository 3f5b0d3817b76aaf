"""`ratchet report`: one HTML file, without network, about one run.

sources.py       I/O: what there is of a run, in a cluster, a folder, a bucket; what is missing, in words
attempts.py      attempts, their ends and their seconds, put together from status, ledger and journal
learned.py       whether the run learned: evaluations and rewards, first and last, with what chance would make
cost.py          chip hours by kind of capacity
curves.py        which metrics are drawn; curve_svg.py draws one, downsample.py makes long ones short
page.py          the sections, in order; html.py escapes, report.css and report.js give looks and hovering
bundle.py        the zip for bug reports; redaction.py leaves out what is nobody's business
"""
