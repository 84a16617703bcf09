"""Everything that exists because of TorchServe; docs/torchserve.md explains its traps.

In a worker process, of which TorchServe starts one or more for each endpoint:

    handler.py      the class that TorchServe looks for
    startup.py      open the bundle, prove the engine, make the Worker
    worker.py       one dynamic batch → replies
    messages.py     TorchServe's rows ↔ HTTP messages
    upstream.py     changes to TorchServe's own worker code, made as it runs

In the launcher:

    instance.py     one running TorchServe, with its private port
    process.py      the JVM as a child process: its configuration, start and end
    supervised.py   the program through which the JVM ends with the launcher
    memory.py       how much memory the JVM may take
    java.py         find a Java
    store.py        the model store and the other files that TorchServe runs on
    management.py   TorchServe's management API
    sockets.py      HTTP over the Unix sockets of that API and of TorchServe's metrics
    silence.py      tell stuck workers from busy workers
    drain.py        wait until every request that has come in is answered
    versions.py     serve another bundle without failing a request

Between the two: activity.py tells the launcher which batches are under way.
"""
