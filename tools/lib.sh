# shellcheck shell=bash
# Sourced by the scripts beside it: changes to the top of the source tree, and provides functions to install Debian packages and
# to build.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Cargo's usual place, for shells whose profile has not put it on the path.
PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

# More threads than processors, since tests spend most of their time waiting.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

# Programs that are missing, and the packages that contain them.
missing=()
packages=()

# need PROGRAM PACKAGE...: notes the packages for install_missing, if the program is missing.
need() {
    command -v "$1" >/dev/null && return 0
    missing+=("$1")
    packages+=("${@:2}")
}

# Installs all noted packages at once. The output of apt is shown only if it fails.
install_missing() {
    [ "${#missing[@]}" -gt 0 ] || return 0
    local programs="${missing[*]}" list="${packages[*]}" said
    missing=()
    packages=()
    local manual="install by hand (Debian and Ubuntu: apt-get install $list) and run this again"
    command -v apt-get >/dev/null || { say "missing: $programs, and there is no apt-get: $manual"; return 1; }
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null </dev/null || { say "missing: $programs, and installing needs root: $manual"; return 1; }
        as_root=(sudo -n)
    fi
    say "missing: $programs; installing $list with apt-get"
    local get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y)
    # Old package lists name packages that no longer exist. Without a network the packages at hand may do.
    "${get[@]}" update </dev/null >/dev/null 2>&1 || say "going on with the package lists of this machine: apt-get update failed"
    # shellcheck disable=SC2086 # names of packages have no blanks
    said=$("${get[@]}" install --no-install-recommends $list </dev/null 2>&1) ||
        { printf '%s\n' "$said" | tail -n 20 >&2; say "apt-get could not install $list: $manual"; return 1; }
}

# The oldest rsync that syncq is tested with.
oldest_rsync() {
    sed -n 's/^pub const OLDEST_RSYNC: &str = "\(.*\)";$/\1/p' src/mirror/rsync/installed.rs | grep . ||
        fail "there is no OLDEST_RSYNC in src/mirror/rsync/installed.rs"
}

# without_places CARGO-ARGUMENT...: runs cargo so that the result names no directory of this machine. Without this, messages of
# panics contain the names of source files, also those of other crates below Cargo's home. All optimized builds use this
# function, since other flags would have everything built again.
without_places() {
    local home=${CARGO_HOME:-${HOME:-/root}/.cargo} registry flags=()
    # The name of the registry's directory contains the host that the crates came from.
    cargo fetch --locked --quiet </dev/null || true
    flags=("--remap-path-prefix=$PWD=/usr/src/syncq" "--remap-path-prefix=$home=/usr/src/cargo")
    # If several prefixes match, the last one counts.
    for registry in "$home"/registry/src/*/; do
        [ -d "$registry" ] && flags+=("--remap-path-prefix=${registry%/}=/usr/src/crates")
    done
    if [ -n "${CARGO_ENCODED_RUSTFLAGS:-}${RUSTFLAGS:-}" ]; then
        local given=${CARGO_ENCODED_RUSTFLAGS:-${RUSTFLAGS// /$'\x1f'}} flag
        for flag in "${flags[@]}"; do given+=$'\x1f'$flag; done
        CARGO_ENCODED_RUSTFLAGS=$given cargo "$@"
        return
    fi
    local list
    list=$(printf "'%s'," "${flags[@]}")
    # These flags are added to those of the user's Cargo configuration.
    cargo --config "build.rustflags=[$list]" "$@"
}

# built NAME CARGO-ARGUMENT...: builds with cargo, and prints the path of the executable NAME, wherever the user's configuration
# puts it.
built() {
    local name=$1 path cargo=cargo
    shift
    case " $* " in
    *" --release "* | " bench "*) cargo=without_places ;;
    esac
    path=$("$cargo" "$@" --locked --message-format=json-render-diagnostics </dev/null |
        sed -n "s|.*\"executable\":\"\([^\"]*/${name}[^\"/]*\)\".*|\1|p" | tail -n 1)
    [ -n "$path" ] || fail "cargo built no $name"
    printf '%s\n' "$path"
}
