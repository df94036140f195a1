#!/bin/bash
# Digest lists are in force before anything else runs: diglim-upload(1), boot.
# shellcheck disable=SC2154,SC2317 # variables of dracut, which calls the functions

# called by dracut
check() {
    require_binaries diglim-upload
}

# called by dracut
depends() {
    echo base
}

# called by dracut
installkernel() {
    # kmod before version 31 unpacks a module itself and hands it to the kernel
    # from memory, which has no file that could be in a list. All modules are
    # there only after the last dracut module has run.
    eval "diglim_$(declare -f dracut_kernel_post)"
    dracut_kernel_post() {
        find "$initdir" -path '*/lib/modules/*' \
            '(' -name '*.ko.xz' -exec xz -d {} + -o -name '*.ko.zst' -exec zstd -q -d --rm {} + ')' \
            || dwarning "diglim: modules stay compressed, without xz or zstd: a gate that enforces denies them to kmod before version 31"
        diglim_dracut_kernel_post
    }
}

# called by dracut
install() {
    local conf=/etc/diglim/boot.conf scope

    # What lists know is what was packaged.
    # shellcheck disable=SC2034
    do_strip=no

    inst_simple "$(command -v diglim-upload)" /usr/bin/diglim-upload
    inst_multiple -o $conf
    # Under its own name systemd would give it to the kernel, before diglim-upload
    # can put its rule in front.
    local policy
    for policy in /etc/diglim/ima-policy /etc/ima/ima-policy; do
        [[ -e $dracutsysrootdir$policy ]] || continue
        inst_simple "$policy" /etc/diglim/ima-policy
        break
    done
    if [[ -e $dracutsysrootdir$conf ]]; then
        scope=$(sed -n 's|^[[:space:]]*scope[[:space:]]\+\(/[^#[:space:]]*\).*|\1|p' "$dracutsysrootdir$conf")
        # shellcheck disable=SC2086
        inst_multiple -o $scope
    fi
    local dir
    for dir in /etc/digest_lists /etc/diglim/keys; do
        [[ -d $dracutsysrootdir$dir ]] || continue
        inst_dir "$dir"
        find -L "$dracutsysrootdir$dir" -type f -print0 \
            | while IFS= read -r -d '' file; do inst_simple "${file#"$dracutsysrootdir"}"; done
    done

    inst_hook cmdline 00 "$moddir/diglim-boot.sh"
    inst_hook cleanup 99 "$moddir/diglim-root.sh"
}
