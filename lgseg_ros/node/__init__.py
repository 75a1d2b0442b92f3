"""The ROS node: images in, masks out."""
