"""Places orders in sellers' FeedAMP accounts and brings fulfillments back; plain Python, without Airflow."""

import os

__version__ = "0.1.0"

# Read when pyarrow is first imported. Its own allocator keeps a third of what a task adds to its process for blocks that
# it has freed; the system's gives them back.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
