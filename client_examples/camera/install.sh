#!/bin/sh
# Makes the virtual environment of the Greengrass component in its work folder, from the folder given: install.sh FOLDER.
# Runs at each start of the nucleus, too, and then returns at once. Wheels in FOLDER/wheels do without internet.
set -e
folder=$1
requirements="requirements.txt requirements-opencv.txt requirements-mqtt.txt requirements-greengrass.txt"

wanted=$(cd "$folder" && cat $requirements | cksum)
if [ -f venv/installed ] && [ "$(cat venv/installed)" = "$wanted" ]; then
    exit 0
fi
rm -rf venv
# With the system's packages: GStreamer's bindings are among them.
python3 -m venv --system-site-packages venv
from=
if [ -d "$folder/wheels" ]; then
    from="--no-index --find-links $folder/wheels"
fi
for file in $requirements; do
    venv/bin/python -m pip install --quiet --disable-pip-version-check $from -r "$folder/$file"
done
echo "$wanted" > venv/installed
