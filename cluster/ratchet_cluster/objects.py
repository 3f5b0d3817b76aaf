"""What the API server takes and sends: Kubernetes objects and their parts, as plain JSON.

Their fields are the API server's matter, so they are not spelt out here: what does not fit, it refuses.
"""

from typing import Any

Object = dict[str, Any]
"""A JSON object: a whole one such as a Pod, or a part of it such as a container or a probe."""
