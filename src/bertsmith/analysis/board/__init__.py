"""The board: all runs of a folder as pages on localhost, refreshed while they train.

tail.py       new lines of a log, whatever happened to it meanwhile
summary.py    what the table says of a run, from its log's new lines alone
shelf.py      the runs under a folder; only what changed is looked at again
feed.py       what is new since a client last asked
live.py       a run's report, or several beside each other, in parts that are renewed one by one
recipes.py    differences of recipes
pages.py      the pages themselves, without their content
server.py     HTTP: read-only, and on the loopback interface unless told otherwise
"""
