"""What all nodes of a run share: true time, clocks, the network and its lines, machines, and every draw of chance."""
