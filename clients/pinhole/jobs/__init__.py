"""Batch embedding: a source of images, of any size, into Parquet shards or one file.

sources/    what the inputs are: folders, archives, arrays, tables, lists, URLs
pipeline    list → read → embed → write, all at once
runners     what embeds: service (over HTTP), local (this process), ray (a cluster)
known       what has been embedded already, by sha256
shards      the result, so many rows a file; folder: their job.json and lock; sinks: one file
job         from beginning to end, or from where a crash has left it
"""
