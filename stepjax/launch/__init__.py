"""Starting many processes as one run; checking a pod before it is paid for."""
