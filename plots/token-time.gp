# Decoding: time per token of one request.
ycol = 4; ylow = 5; yhigh = 6
yname = 'time per token (ms)'
load scripts.'/latency-panels.gp'
