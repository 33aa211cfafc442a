#!/usr/bin/env bash
# Runs the tests of the modules that hold `unsafe` under valgrind's memcheck, which sees reads of what was never written, and accesses outside of what
# was allocated, in our code and in libjpeg-turbo's.
#
#     scripts/check_unsafe.sh
#
# Valgrind knows no AVX-512: the tests run as on a processor without it. The allocator of the tests is the system's, so that memcheck sees each
# allocation. Not among them are `allocator` (two calls of mimalloc), `cli::signals` (one system call) and `ops::cuda` (a GPU's driver).
#
# Miri sees more, and no foreign code: `jpeg::library` cannot run there, and the others can by
#
#     MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p ptq --lib ops::fresh ops::conv::matrix
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind > /dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }

# The executables of the unit tests, as cargo names them.
executables() {
    cargo test --release --locked --lib --no-run "$@" 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p'
}

check() {
    echo "== $2"
    valgrind --quiet --error-exitcode=9 --leak-check=no "$1" --test-threads 1 "$2"
}

ptq=$(executables -p ptq)
metaaug=$(executables -p metaaug)
check "$ptq" ops::fresh
check "$ptq" ops::conv::matrix
check "$metaaug" data::decode
echo "memcheck found nothing"
