#!/usr/bin/env bash
# Checks for the compilers and libraries that the build needs. Installs Debian's or Ubuntu's packages where it may;
# elsewhere it says what to install. Programs that only some commands need are named as arguments, by their packages.
set -euo pipefail

rust_min=89
if ! command -v cargo >/dev/null; then
  echo "adit: Rust is missing. Install it with rustup (https://rustup.rs), then open a new shell." >&2
  exit 1
fi
rust_minor=$(cargo --version | sed -E 's/^cargo 1\.([0-9]+).*/\1/')
if ! [ "$rust_minor" -ge "$rust_min" ] 2>/dev/null; then
  echo "adit: $(cargo --version) is too old: Rust 1.$rust_min or newer is needed. Run: rustup update stable" >&2
  exit 1
fi

missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v cmake >/dev/null || missing+=(cmake)
command -v make >/dev/null || missing+=(make)
command -v ninja >/dev/null || missing+=(ninja-build)
command -v ccache >/dev/null || missing+=(ccache)
command -v pkg-config >/dev/null || missing+=(pkg-config)
# The schema of a Bitcoin Core's IPC interface is compiled with it.
command -v capnp >/dev/null || missing+=(capnproto)
# Bitcoin Core's build wants these headers and libraries: Boost for all of it, the others for the node that tests use.
has_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ]; }
has_header boost/version.hpp || missing+=(libboost-dev)
has_header capnp/rpc.h || missing+=(libcapnp-dev)
has_header event2/event.h || missing+=(libevent-dev)
for program in "$@"; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "adit: these are missing (Debian's names): ${missing[*]}" >&2
  echo "adit: install them with this system's package manager: a C++ compiler, CMake, Ninja, ccache, pkg-config, Boost's headers, Cap'n Proto, libevent${*:+, $*}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "adit: these packages are missing: ${missing[*]}" >&2
    echo "adit: install them with: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo -n)
fi
echo "adit: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() { "${as_root[@]}" apt-get install -y -qq "${missing[@]}" >/dev/null; }
# A machine that never fetched the package lists needs them first.
install 2>/dev/null || { "${as_root[@]}" apt-get update -qq && install; }
