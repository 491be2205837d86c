# What the scripts of this folder share. Sourced after scripts/lib.sh.

# bench_disk GIGABYTES: a folder to write to, in $DISK. A new ext4 in a file, so that what was deleted before, other programs, and a
# disk without a journal do not show in the figures; a plain folder where none can be mounted.
bench_disk() {
  local free
  DISK=$WORK/disk
  mkdir "$DISK"
  free=$(($(stat -f -c '%a * %S' "$WORK") / (1 << 30)))
  [ "$free" -gt 6 ] || die "needs 6 GB of free space in $WORK"
  truncate -s "$((free - 2 < $1 ? free - 2 : $1))G" "$WORK/disk.img"
  if mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$WORK/disk.img" &&
    LOOP=$(losetup --find --show --direct-io=on "$WORK/disk.img" 2>>"$WORK/log/disk") && mount -o noatime "$LOOP" "$DISK"; then
    # It goes away with the mount, which ends when everything else has.
    losetup -d "$LOOP"
  else
    say "no file system of its own can be mounted: the figures are those of a folder"
  fi
}

# bench_compress: makes $COMPRESS, the compressor alone, if there is Rust.
bench_compress() {
  local target dir
  COMPRESS=
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  command -v cargo >/dev/null || { say "no cargo: the compressor alone is not measured"; return 1; }
  # The target of scripts/build, whose crates are compiled already.
  target=$(uname -m)-unknown-linux-musl
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && command -v musl-gcc >/dev/null || target=$(rustc -vV | sed -n 's/^host: //p')
  say "building the compressor alone"
  (cd "$ROOT" && env "CC_${target//-/_}=$([[ $target == *musl ]] && echo musl-gcc || echo cc)" \
    cargo build --quiet --locked --release --package image --example compress --target "$target") || return 1
  dir=${CARGO_TARGET_DIR:-$ROOT/target}
  COMPRESS=$dir/$target/release/examples/compress
}
