# Differences to the baseline, paired by seed, with 95 % intervals.
zero = 1
bars = 0
load scripts.'/rows.gp'
