"""What training gives a method and takes from it: losses, memory, the network, and its hyper-parameters."""
