"""The contract in one process or a few, on Granian: an event loop, and a thread for each core.

    instance.py     one running service: started, watched, swapped, drained, stopped
    process.py      one process of it: the event loop, the threads, the model
    followers.py    the processes beside the first
    team.py         what the processes know of each other
    model.py        open a bundle to be served
    app.py          HTTP: a request becomes a message, a reply becomes a response
    cors.py         which web pages of other origins may call
    dispatcher.py   the threads that answer messages, and which of them is next
    files.py        the explorer's page and the API's documentation, where they are installed

Granian reads and writes HTTP in a thread of its own, without Python's lock. The event loop's thread
hands each message to the dispatcher, whose threads read, run and write it (serve.service).
"""
