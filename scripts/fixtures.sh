#!/usr/bin/env bash
# Builds the peers' programs that the tests run against: the reference implementation's mining device and its
# translator. Each is built once, into the cache outside the checkout.
set -euo pipefail

cache=${ADIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/adit}
root=$cache/sri
mkdir -p "$root"
exec 9>"$root/.lock"
flock 9

# crate, version, program
programs=(
  "integration_tests_sv2 0.6.0 mining_device"
  "translator_sv2 0.6.0 translator_sv2"
)

for program in "${programs[@]}"; do
  read -r crate version bin <<<"$program"
  if [ -x "$root/bin/$bin" ] && grep -q "^\"$crate $version " "$root/.crates.toml" 2>/dev/null; then
    continue
  fi
  echo "adit: building $bin of $crate $version for the tests (once, some minutes)" >&2
  # A target directory of its own, removed afterwards: its dependencies are not ours.
  if ! CARGO_TARGET_DIR=$cache/sri-build cargo install --locked --root "$root" "$crate" --version "$version" \
    --bin "$bin" >"$root/$bin.log" 2>&1; then
    tail -n 30 "$root/$bin.log" >&2
    echo "adit: $bin could not be built; the whole log is $root/$bin.log" >&2
    exit 1
  fi
done
rm -rf "$cache/sri-build"
