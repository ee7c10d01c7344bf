# Decoding against the tokens in front.
load scripts.'/curves.gp'
