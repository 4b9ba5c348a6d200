#!/usr/bin/env bash
# Builds the programs of others that the tests run against: Bitcoin Core's node, and the reference implementation's pool,
# translator and mining device. Each is built once, into the cache outside the checkout. `fixtures.sh core` and
# `fixtures.sh peers` build one half of them.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${ADIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/adit}
started=$SECONDS

say() { echo "adit: $*" >&2; }

# fails WHAT LOG: the end of the log, and where all of it is.
fails() {
  tail -n 30 "$2" >&2
  say "$1 could not be built; the whole log is $2"
  exit 1
}

minutes() { echo $(((SECONDS - started + 59) / 60)); }

# Bitcoin Core's whole source lies in the crate that the embedded node links, so there is nothing else to fetch. What the
# crate leaves out of it (ZeroMQ, the map of autonomous systems) and what no test asks for (wallet, tools) stays off.
core_flags=(
  -DCMAKE_BUILD_TYPE=Release
  -DENABLE_IPC=ON -DBUILD_DAEMON=ON -DBUILD_CLI=ON
  -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF -DBUILD_FUZZ_BINARY=OFF -DBUILD_GUI=OFF
  -DBUILD_BITCOIN_BIN=OFF -DBUILD_TX=OFF -DBUILD_UTIL=OFF -DBUILD_UTIL_CHAINSTATE=OFF
  -DENABLE_WALLET=OFF -DENABLE_EXTERNAL_SIGNER=OFF -DWITH_ZMQ=OFF -DWITH_EMBEDDED_ASMAP=OFF -DINSTALL_MAN=OFF
)
core_programs=(bitcoin-node bitcoin-cli)

build_core() {
  local root=$cache/core crate source stamp log build
  mkdir -p "$root/bin"
  exec 9>"$root/.lock"
  flock 9
  started=$SECONDS
  # registry+https://...#libbitcoinkernel-sys@0.4.1
  crate=$(cargo pkgid --locked libbitcoinkernel-sys)
  stamp="${crate##*#} ${core_flags[*]}"
  if [ -x "$root/bin/bitcoin-node" ] && [ -x "$root/bin/bitcoin-cli" ] && [ "$(cat "$root/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  say "building ${core_programs[*]} of ${crate##*#} for the tests (once, about 9 minutes on two cores)"
  log=$root/build.log
  build=$root/build
  rm -rf "$root/stamp" "$build"
  source=$(cargo metadata --locked --format-version 1 2>"$log" |
    grep -o '"manifest_path":"[^"]*/libbitcoinkernel-sys[^"/]*/Cargo.toml"' | cut -d'"' -f4) || fails bitcoin-node "$log"
  # Both are the Makefile's too; so are the folders that paths are kept relative to.
  if command -v ccache >/dev/null; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
    export CCACHE_DIR=${CCACHE_DIR:-$cache/ccache} CCACHE_BASEDIR=$build CCACHE_NOHASHDIR=true
  fi
  cmake -S "$(dirname "$source")/bitcoin" -B "$build" -G Ninja "${core_flags[@]}" >"$log" 2>&1 || fails bitcoin-node "$log"
  cmake --build "$build" --parallel "$(nproc)" --target "${core_programs[@]}" >>"$log" 2>&1 || fails bitcoin-node "$log"
  for program in "${core_programs[@]}"; do
    strip -o "$root/bin/$program" "$build/bin/$program"
  done
  echo "$stamp" >"$root/stamp"
  rm -rf "$build"
  say "built ${core_programs[*]} in $(minutes) minutes"
}

# crate, version, program
peer_programs=(
  "integration_tests_sv2 0.6.0 mining_device"
  "translator_sv2 0.6.0 translator_sv2"
  "pool_sv2 0.7.0 pool_sv2"
)

build_peers() {
  local root=$cache/sri crate version bin
  mkdir -p "$root"
  exec 9>"$root/.lock"
  flock 9
  for program in "${peer_programs[@]}"; do
    read -r crate version bin <<<"$program"
    if [ -x "$root/bin/$bin" ] && grep -q "^\"$crate $version " "$root/.crates.toml" 2>/dev/null; then
      continue
    fi
    started=$SECONDS
    say "building $bin of $crate $version for the tests (once, about 6 minutes on two cores)"
    # A target directory of its own, removed afterwards: its dependencies are not ours.
    CARGO_TARGET_DIR=$cache/sri-build cargo install --locked --root "$root" "$crate" --version "$version" \
      --bin "$bin" >"$root/$bin.log" 2>&1 || fails "$bin" "$root/$bin.log"
    say "built $bin in $(minutes) minutes"
  done
  rm -rf "$cache/sri-build"
}

case ${1:-all} in
  core) build_core ;;
  peers) build_peers ;;
  all) build_core; build_peers ;;
  *) say "usage: scripts/fixtures.sh [core|peers]"; exit 2 ;;
esac
