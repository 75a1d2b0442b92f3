"""The demo on a real ROS graph: a camera process, the node, and a recorder."""
