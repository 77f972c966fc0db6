"""AWS, on the controller: a fleet's instances, scaling group, load balancer and launch template."""
