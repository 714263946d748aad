"""A red RTSP stream at rtsp://127.0.0.1:PORT/camera, until it is ended: `rtsp_server.py PORT WIDTH HEIGHT`.

For the Python of the system: Debian's packages (python3-gi, gir1.2-gst-rtsp-server-1.0) are for that one.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (versions first)

Gst.init(None)
port, width, height = sys.argv[1:]
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    f"( videotestsrc is-live=true pattern=red ! video/x-raw,width={width},height={height},framerate=20/1 ! "
    "videoconvert ! "
    "x264enc tune=zerolatency key-int-max=5 ! rtph264pay name=pay0 pt=96 )"
)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
