#!/bin/sh
# Publish what changed since the last export: update.sh MODEL FOLDER [OPTION...]
#   update.sh models/retrieval_ivf changes --from stable
# The folder holds those of the files below that there are, each with all changes since the export.
# Nothing is published, and the status is not 0, if an input is faulty or a gate fails.
set -eu
model=${1:?name a model, <repository>/<model>}
folder=${2:?name a folder with changes}
shift 2
found=
for pair in candidates=new.csv attributes=stock.csv remove=withdrawn.txt interactions=since.csv forget-users=forget.txt; do
    file=$folder/${pair#*=}
    if [ -s "$file" ]; then
        set -- "$@" "--${pair%%=*}" "$file"
        found=1
    fi
done
if [ -z "$found" ]; then
    echo "update: no changes in $folder" >&2
    exit 0
fi
exec shortlist update "$model" "$@"
