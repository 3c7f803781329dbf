#!/bin/sh
# Writes the hash-locked requirements of the images from pyproject.toml: `make lock`. Versions and hashes, no addresses.
# One file for each device and line of scikit-learn, for every Python that the runtime takes and both architectures.
set -eu
cd "$(dirname "$0")/../.."
folder=images/requirements

lock() {  # lock FILE ARGUMENTS...: to the newest versions that fit
  file=$folder/$1.txt
  shift
  uv pip compile "$@" --generate-hashes --no-emit-index-url --universal --python-version 3.11 --upgrade --quiet \
    --no-annotate --custom-compile-command "make lock" --output-file "$file"
}

for line in 1.9 1.8; do
  for device in cpu cuda; do
    echo "scikit-learn==$line.*" | lock "$device-sklearn$line" pyproject.toml - --extra "$device"
  done
done

# What EXTRAS brings: only what the images don't have yet, fitting the versions that they have.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -h '==' "$folder"/cpu-sklearn*.txt | grep -v '^scikit-learn' | tr -d '\\' | sort -u >"$pins"
present=$(sed 's/==.*/ /; s/^/--no-emit-package /' "$pins" | sort -u)
for extra in convert boosters gcs azure; do
  # shellcheck disable=SC2086  # words on purpose
  lock "extra-$extra" pyproject.toml --extra "$extra" --constraint "$pins" --no-emit-package scikit-learn $present
done

# For the build: pip, which also goes into the images, what makes a wheel of the runtime, and what lists what is in an image.
for tool in pip setuptools cyclonedx-bom; do
  echo "$tool" | lock "$tool" -
done
