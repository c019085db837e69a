#!/bin/sh
# Copy a model repository from an object store: whole versions only, by rename.
#
# The server loads any folder with an integer as its name at once, so a version is copied under
# another name and renamed when complete. saved_model.pb is published last: a version without it
# is still being written. Versions that are no longer in the store are removed.
#
#   sync.sh --once | --every SECONDS
set -eu

REMOTE=${SYNC_REMOTE:-models:}
LOCAL=${SYNC_LOCAL:-/models}

say() { printf 'sync: %s\n' "$*" >&2; }

versions() { rclone lsf --dirs-only "$REMOTE$1" | sed -n 's#^\([0-9][0-9]*\)/$#\1#p'; }

sync_model() {
    model=$1
    mkdir -p "$LOCAL/$model"
    present=$(versions "$model") || return 1
    for version in $present; do
        [ ! -d "$LOCAL/$model/$version" ] || continue
        [ -n "$(rclone lsf --files-only --include saved_model.pb "$REMOTE$model/$version")" ] || continue
        staging="$LOCAL/$model/.syncing-$version"
        rm -rf "$staging"
        rclone copy "$REMOTE$model/$version" "$staging" || return 1
        mv "$staging" "$LOCAL/$model/$version"
        say "$model version $version is here"
    done
    # An empty listing more likely means a faulty store than the end of a model.
    [ -n "$present" ] || { say "the store lists no version of $model: nothing removed"; return 1; }
    for folder in "$LOCAL/$model"/[0-9]*; do
        version=${folder##*/}
        if [ -d "$folder" ] && ! printf '%s\n' "$present" | grep -qx "$version"; then
            mv "$folder" "$LOCAL/$model/.removed-$version"
            rm -rf "$LOCAL/$model/.removed-$version"
            say "$model version $version is gone"
        fi
    done
}

sync_all() {
    status=0
    models=$(rclone lsf --dirs-only "$REMOTE") || return 1
    for model in $models; do
        case $model in
            .*) ;;
            *) sync_model "${model%/}" || status=1 ;;
        esac
    done
    return $status
}

case ${1:-} in
    --once) sync_all ;;
    --every)
        interval=${2:?sync.sh --every SECONDS}
        trap 'exit 0' TERM INT
        while :; do
            sync_all || say "not everything could be brought; trying again in $interval s"
            sleep "$interval" &
            wait $!
        done
        ;;
    *) say "usage: sync.sh --once | --every SECONDS"; exit 2 ;;
esac
