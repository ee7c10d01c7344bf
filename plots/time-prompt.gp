# Prefill against the length of the prompt.
load scripts.'/curves.gp'
