# How times grow.
load scripts.'/scaling.gp'
