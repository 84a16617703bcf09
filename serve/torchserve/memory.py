"""How much memory the JVM may take.

Java's own default is a quarter of the host's memory for the heap and as much again for the buffers
outside the heap ("direct" memory), whatever the workers take. Each upload lies in the heap until it
is answered. The uploads that are coming in, and the batches that are going to a worker, lie in
direct memory; a batch takes twice its size there, since Netty copies it to a larger buffer as it
grows.
"""

from serve.bundle.engine.host import usable_memory
from serve.bundle.limits import MAX_BODY_BYTES

MIB = 1 << 20
WORKER_BYTES = 330 * MIB
REST_BYTES = 300 * MIB  # the launcher, and what the JVM takes beside heap and direct memory
# The gateway lets 8 large uploads in at a time: 128 MiB in the heap, and thrice that outside it.
LEAST_BYTES = 4 * 8 * MAX_BODY_BYTES
MOST_BYTES = 2 * LEAST_BYTES


def memory_flags(workers: int) -> list[str]:
    """Java's options for heap and direct memory: half each of what all the workers leave.

    At least LEAST_BYTES, even where that is more than there is: legal uploads need as much.
    """
    left = usable_memory() - workers * WORKER_BYTES - REST_BYTES
    each = max(LEAST_BYTES, min(MOST_BYTES, left // 2)) // MIB
    # Where direct memory runs out, the upload that asked for it is refused (507). Where the heap
    # runs out, TorchServe forgets batches and leaves their workers waiting: it had better end.
    return [f"-Xmx{each}m", f"-XX:MaxDirectMemorySize={each}m", "-XX:+ExitOnOutOfMemoryError"]
