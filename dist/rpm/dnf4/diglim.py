"""For dnf 4: lists of what is about to be installed are in the kernel before it
is, or the transaction does not begin."""

import subprocess

import dnf

UPDATE = "/usr/libexec/diglim/diglim-update"


class Diglim(dnf.Plugin):
    name = "diglim"

    def pre_transaction(self):
        files = [package.localPkg() for package in self.base.transaction.install_set]
        if self.base.conf.installroot != "/" or not files:
            return
        try:
            subprocess.run([UPDATE, "add", *files], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            # dnf logs other exceptions and goes on.
            raise dnf.exceptions.Error("nothing is installed: diglim-update add failed") from error
