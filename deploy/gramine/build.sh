#!/bin/sh
# Renders a manifest, signs the enclave and prints its code identity. Run it on a machine that you trust: no SGX is needed.
# README.md says what each step means.
set -eu

usage() {
    cat >&2 <<'USAGE'
usage: build.sh [options] keyservice|semirt
  --binary FILE     the trusted program [target/x86_64-unknown-linux-gnu/release/sesemi-PART]
  --out DIR         where the enclave goes; made if missing [enclave-PART]
  --key FILE        RSA-3072 signing key [$HOME/.config/gramine/enclave-key.pem, made by gramine-sgx-gen-private-key]
  --linking KIND    static or dynamic: how the program is linked [static]
  --edmm            for SGX2: take memory when it is needed
  -D NAME=VALUE     another variable of the template: enclave_size, max_threads
example: deploy/gramine/build.sh --out enclave-semirt -D enclave_size=2G semirt
USAGE
    exit 2
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
release="$top/target/x86_64-unknown-linux-gnu/release"
binary='' out='' part='' linking=static edmm=0
key="${XDG_CONFIG_HOME:-$HOME/.config}/gramine/enclave-key.pem"
sesemi="${SESEMI:-$release/sesemi}"
more=''
while [ $# -gt 0 ]; do
    case "$1" in
    --binary) binary="${2:?}"; shift 2 ;;
    --out) out="${2:?}"; shift 2 ;;
    --key) key="${2:?}"; shift 2 ;;
    --linking) linking="${2:?}"; shift 2 ;;
    --edmm) edmm=1; shift ;;
    -D)
        # Words for gramine-manifest; spaces have no place in them.
        case "${2:?}" in *[!A-Za-z0-9_=.]*) usage ;; esac
        more="$more -D$2"; shift 2 ;;
    keyservice | semirt) part="$1"; shift ;;
    *) usage ;;
    esac
done
[ -n "$part" ] || usage
case "$linking" in static | dynamic) ;; *) usage ;; esac
name="sesemi-$part"
binary="${binary:-$release/$name}"
out="${out:-enclave-$part}"

for tool in gramine-manifest gramine-sgx-sign; do
    command -v "$tool" >/dev/null || { echo "error: $tool is missing: install Gramine 1.8 or later" >&2; exit 1; }
done
[ -x "$sesemi" ] || { echo "error: $sesemi is missing: run cargo xtask build, or set SESEMI" >&2; exit 1; }
[ -f "$key" ] || { echo "error: no signing key $key: run gramine-sgx-gen-private-key" >&2; exit 1; }

# Absolute from here on, because the folder changes.
key=$(realpath -- "$key")
sesemi=$(realpath -- "$sesemi")
mkdir -p "$out/settings" "$out/state" "$out/models"
cp "$binary" "$out/$name"
cd "$out"
# Names in the manifest are relative to this folder, so that another machine gets the same measurement.
# shellcheck disable=SC2086
gramine-manifest -Dlinking="$linking" -Dedmm="$edmm" -Darch_libdir=/usr/lib/x86_64-linux-gnu $more \
    "$here/$name.manifest.template" "$name.manifest"
# A fixed date: it is in the SIGSTRUCT, and the day of the build tells nobody anything.
gramine-sgx-sign --date 0000-00-00 --key "$key" --manifest "$name.manifest" --output "$name.manifest.sgx"
exec "$sesemi" measure --sgx-sigstruct "$name.manifest.sgx"
