"""Batch embedding: a source of images, of any size, into Parquet shards or one file.

job         a job from beginning to end, or from where an interruption has left it
making      what makes shards: this process, with a runner; ray: a cluster of such processes
runners     what embeds: service (over HTTP) or local (a bundle in this process)
pictures    what pictures a model takes, so that the atlas can show what it saw
pipeline    list → read → embed → write, all at once
sources/    what the inputs are: folders, archives, arrays, tables, lists, URLs
known       what has been embedded already; earlier: the rows of earlier runs and of --reuse
shards      the result, a fixed number of rows in each file; folder: their _job.json and lock
sinks       OUT, and what a job doesn't write over; formats: the shards as one file
rows        one row of the result; errors: what ends a job, and what ends one row
"""
