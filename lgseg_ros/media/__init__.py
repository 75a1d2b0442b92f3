"""Sources and sinks of images: files, folders, videos, cameras, overlays and video writers."""
