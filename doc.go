// Package diglim is an integrity toolchain: digest lists made of vendor-signed
// package headers, fed to the kernel, and held against what a TPM quotes. The
// programs are in cmd, the libraries in rpmhdr, digestlist and tpm.
package diglim
