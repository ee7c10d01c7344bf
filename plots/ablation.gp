# Differences of variants to what they were made from, paired by seed, with 95 % intervals.
zero = 1
bars = 1
load scripts.'/rows.gp'
