#!/usr/bin/env bash
# A boot test for CI and for `git bisect run`: boots KERNEL, runs COMMAND in it, and ends as COMMAND did.
#
#   examples/ci-boot-test.sh arch/x86/boot/bzImage 'grep -qw ext4 /proc/filesystems'
#   git bisect run sh -c 'make -j8 bzImage || exit 125; ci-boot-test.sh arch/x86/boot/bzImage "COMMAND"'
#
# Exit code                                   what `git bisect run` makes of it
#   0        COMMAND succeeded                good
#   1–123    COMMAND failed (124 and more: 1) bad
#   124      still running after $TIMEOUT     bad
#   125      the host's fault, or the caller's skipped
#   126      the kernel panicked or crashed   bad
#   128 + N  ended by signal N                bisecting stops
#
# Environment: TIMEOUT (default 60s); RESULT, a file for the verdict as JSON (default verdict.json);
# MARTLET, the program.
set -euo pipefail

if (($# == 0 || $# > 2)) || [[ $1 == -* ]]; then
  echo "usage: ci-boot-test.sh KERNEL ['COMMAND for sh in the guest']" >&2
  exit 125
fi
kernel=$1 command=${2:-true}
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
martlet=${MARTLET:-$tree/build/release/martlet}
result=$(realpath "${RESULT:-verdict.json}") || exit 125

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root"/{bin,dev,proc,sys}
cp "$(command -v busybox)" "$root/bin/busybox" || exit 125
echo "$command" > "$root/test"
# The exit port, for kernels without /dev/port too.
cc -static -O2 -x c -o "$root/bin/exit-vm" - << 'C' || exit 125
#include <stdlib.h>
#include <sys/io.h>
int main(int count, char** words) {
  if (count == 2 && ioperm(0x500, 1, 1) == 0) outb(atoi(words[1]), 0x500);
  return 1;
}
C
cat > "$root/init" << 'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
sh /test
status=$?
[ $status -lt 124 ] || status=1
stty -F /dev/console sane # returns when all output is out
exit-vm $status
INIT
chmod 755 "$root/init"

# `with-kvm` is for hosts without VT-x and AMD-V; elsewhere it may as well be left out.
code=0
"$tree/tests/lab/with-kvm" --share "$(dirname "$result")" -- \
  "$martlet" run "$(realpath "$kernel")" --root "$root" -a quiet --timeout "${TIMEOUT:-60s}" --result "$result" \
  < /dev/null || code=$?
exit "$code"
