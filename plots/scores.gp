# Scores with 95 % intervals: one panel per task, one line per method.
zero = 0
bars = 0
load scripts.'/rows.gp'
