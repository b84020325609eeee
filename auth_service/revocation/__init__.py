"""Revocation: the journal in PostgreSQL that outlives everything else, and how the news of it reaches every verifier.

journal.py      the rows, written in the transaction that ends a thing: the truth
stream.py       the Redis stream, by which other processes hear of them within milliseconds
announcer.py    tells this process and then the stream
follower.py     reads the stream and the journal into the live set
freshness.py    how long ago the journal was last known whole
live_set.py     what is revoked now, in memory
frame_log.py    the last frames of the feed, from which all its clients read
snapshot.py     the live set written down, once for all who connect
feed.py         what one client of the feed is sent, and in which order
"""
