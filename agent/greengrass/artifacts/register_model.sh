#!/bin/sh
# Tells the vision edge agent of this model: one record in its registry, replaced whole.
#
#   sh register_model.sh COMPONENT VERSION PACKAGE REGISTRY
#
# PACKAGE is the folder this was unpacked into. REGISTRY is the agent's registry; a relative path begins at the current
# folder, which is the component's work folder. Run at every start of the nucleus, so everything here may be done twice.
set -eu
umask 022 # the agent follows no registry that everybody may write to

component=$1 version=$2 package=$3 registry=$4
seconds=${REGISTER_SECONDS:-60}

fail() {
    printf 'Model %s %s is not registered: %s\n' "$component" "$version" "$1" >&2
    exit 1
}

# As a JSON text: of what can stand in a line only these two have to be escaped.
quoted() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/["\\]/\\&/g')"
}

[ -f "$package/manifest.json" ] || fail "there is no model package in '$package'."
package=$(CDPATH='' cd -- "$package" && pwd -P)
case $component$version$package in
*[[:cntrl:]]*) fail "there is a control character in its name, version or path." ;;
esac
record=$(printf '{"component": %s, "version": %s, "path": %s}' \
    "$(quoted "$component")" "$(quoted "$version")" "$(quoted "$package")")

# The order in which components start is not told: the agent's work folder may come a little later than this model.
until mkdir -p -- "$registry" 2>/dev/null && [ -w "$registry" ]; do
    [ "$seconds" -gt 0 ] || fail "$(id -un 2>/dev/null || id -u) cannot write the agent's registry '$registry'. \
Deploy the agent, run both as the same user, or give both the same Registry in their configuration."
    seconds=$((seconds - 1))
    sleep 1
done

registry=$(CDPATH='' cd -- "$registry" && pwd -P)

# Beside the record, so that the rename is atomic; a name that does not end in .json is no record.
temporary=$(mktemp "$registry/.$component.XXXXXX")
trap 'rm -f -- "$temporary"' EXIT
printf '%s\n' "$record" >"$temporary"
chmod 0644 -- "$temporary"
mv -f -- "$temporary" "$registry/$component.json"
trap - EXIT
echo "Model $component $version is registered in '$registry'."
