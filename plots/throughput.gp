# Decoding: tokens per second of the whole batch.
ycol = 7; ylow = 7; yhigh = 7
yname = 'throughput (tokens/s)'
set format y '%.0s%c'
load scripts.'/latency-panels.gp'
