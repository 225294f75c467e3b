"""TransRec = item encoder + user encoder + objective."""
