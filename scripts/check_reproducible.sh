#!/usr/bin/env bash
# Builds the release binary twice, in two folders, and compares them bit for bit.
#
#     scripts/check_reproducible.sh [FOLDER]
#
# The same toolchain, sources and lock file must give the same bytes wherever and whenever they are compiled: paths are replaced in what the
# compilers write (`--remap-path-prefix`, `-ffile-prefix-map`), and C sources that ask for the date get that of the last commit
# (`SOURCE_DATE_EPOCH`). Builds everything twice, 54 CPU minutes; FOLDER, by default a temporary one, keeps the builds. Only what git has of the
# working tree is built, so that both folders hold the same; what the binary says of its git revision is part of the comparison.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
cargo_home=${CARGO_HOME:-$HOME/.cargo}

build() {
    local sources=$work/$1/sources
    [ -d "$sources" ] || git clone --quiet "$repository" "$sources"
    local remap="--remap-path-prefix=$sources=/harness --remap-path-prefix=$cargo_home=/cargo"
    (
        cd "$sources"
        export RUSTFLAGS="$remap" CFLAGS="-ffile-prefix-map=$sources=/harness -ffile-prefix-map=$cargo_home=/cargo" CARGO_TARGET_DIR="$work/$1/target"
        export CXXFLAGS="$CFLAGS"
        # The moment of compiling, which C sources may ask for.
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) cargo build --release --locked
    )
}

build one
build another/deeper
sha256sum "$work/one/target/release/harness" "$work/another/deeper/target/release/harness"
if cmp "$work/one/target/release/harness" "$work/another/deeper/target/release/harness"; then
    echo "the same bytes"
else
    echo "they differ: \`diffoscope\`, or \`strings\` and \`diff\`, says in what"
    exit 1
fi
