"""Where a run keeps its files: one small set of functions over file systems and buckets.

    place = Location.parse("gs://bucket/jobs/sums")   # or s3://bucket/prefix, or a path
    storage.write(place / "samples" / "1.jsonl", data)   # whole or not there; durable on return
    storage.read(place / "samples" / "1.jsonl")          # bytes, or None where there is nothing
    storage.create(place / "journal" / "1.json", data)   # True if it was absent, for one of any number of writers
    storage.names(place / "steps")                       # what lies right under it, sorted; [] for nothing
    storage.delete(one), storage.delete_tree(all_under)  # no error where there is nothing

All raise OSError when the storage fails (`BucketError` for buckets, with a way out); `with_retries` tries again and
makes StorageUnavailable of it. Behind them are `posix.py` (link, rename, fsync) and `bucket.py` (TensorStore's
key-value stores, whose `kvstore_spec` is for arrays). `probe.py` tries at the start whether a bucket can be used,
`stream.py` has bytes that grow, `local_copy.py` what must be read as a file.
"""

from ratchet_trainer.storage.bucket import BucketError, kvstore_spec
from ratchet_trainer.storage.location import Location
from ratchet_trainer.storage.objects import (
    create,
    delete,
    delete_tree,
    exists,
    names,
    read,
    read_all,
    read_range,
    remove_empty,
    sweep,
    tree,
    write,
    write_all,
)
from ratchet_trainer.storage.retries import with_retries

__all__ = [
    "BucketError",
    "Location",
    "create",
    "delete",
    "delete_tree",
    "exists",
    "kvstore_spec",
    "names",
    "read",
    "read_all",
    "read_range",
    "remove_empty",
    "sweep",
    "tree",
    "with_retries",
    "write",
    "write_all",
]
