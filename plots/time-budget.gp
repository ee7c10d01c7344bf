# Decoding against the budget of trainable parameters.
load scripts.'/curves.gp'
