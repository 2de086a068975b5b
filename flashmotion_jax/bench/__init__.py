"""How fast this machine is: full-size models with random weights, stage by stage."""
