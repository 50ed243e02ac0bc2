"""The interface between training and a method: losses, memory, the network, and the method's hyper-parameters."""
