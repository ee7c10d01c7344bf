# How memory grows.
load scripts.'/scaling.gp'
